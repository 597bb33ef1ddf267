"""SYSU-MM01: visible and infrared images (Wu et al., ICCV 2017)."""

from __future__ import annotations

import random
from pathlib import Path

import torch

from ccfast._errors import InputError
from ccfast.data.findings import Findings, Reason, printable
from ccfast.data.folders import entry_named, find_root, folder_named, note_beside
from ccfast.data.listing import count_images, entries, is_ignored, list_images
from ccfast.data.parts import GALLERY, QUERY, TRAIN, Label, check_counts, check_number, photographs, read_parts
from ccfast.data.protocol import Comparison, Protocol
from ccfast.data.reid_data import Part, ReIDData
from ccfast.data.text import text_lines

VISIBLE, INFRARED = (1, 2, 4, 5), (3, 6)

#: Visible cameras in rooms.
INDOOR = (1, 2)

TRIALS = 10

ID_LISTS = ("exp/train_id.txt", "exp/val_id.txt", "exp/test_id.txt")
EXPECTED = f"expected cam1/ to cam6/ with images such as cam1/0001/0001.jpg, and {', '.join(ID_LISTS)}"

#: As published: visible and infrared training images, infrared test images, visible test images (a trial uses a few).
COUNTS = {TRAIN: 22_258 + 11_909, QUERY: 3_803, GALLERY: 6_775}


def load_sysumm01(data_dir: str | Path, *, bad_images: str = "refuse", workers: int = 0) -> ReIDData:
    """SYSU-MM01 below ``data_dir``: train on both modalities; infrared queries, visible gallery."""
    root, findings = find_root(data_dir, lambda folders: "cam1" in folders, EXPECTED), Findings()
    train, val, test = (_read_ids(root, name) for name in ID_LISTS)
    cameras = {camera: _identity_folders(root, camera, findings) for camera in sorted(VISIBLE + INFRARED)}
    _note_identities(cameras, train + val + test, findings)
    labels = {
        TRAIN: _images(root, cameras, train + val, VISIBLE + INFRARED, findings),
        QUERY: _images(root, cameras, test, INFRARED, findings),
        GALLERY: _images(root, cameras, test, VISIBLE, findings),
    }
    note_beside(root, [folder for camera in cameras if (folder := folder_named(root, f"cam{camera}"))], findings)
    files = {part: list(images) for part, images in labels.items()}
    check_counts("sysumm01", files, COUNTS)
    known = {path: label for images in labels.values() for path, label in images.items()}
    parts = read_parts(files, known.__getitem__, findings, bad_images=bad_images, workers=workers)
    return photographs("sysumm01", parts, findings, sysumm01_protocols, infrared_cams=INFRARED)


def sysumm01_protocols(query: Part, gallery: Part) -> dict[str, Protocol]:
    """``all_search`` in all visible cameras, ``indoor_search`` in those in rooms; single-shot, ten trials."""
    return {
        "all_search": _single_shot(query, gallery, VISIBLE),
        "indoor_search": _single_shot(query, gallery, INDOOR),
    }


def _single_shot(query: Part, gallery: Part, cameras: tuple[int, ...]) -> Protocol:
    """Trials with one gallery image per identity and camera.

    Trial t draws with ``random.Random(t)`` from sorted images, identity by identity and camera by camera. These are the
    galleries commonly used for published results on this data set.
    """
    assert gallery.ids is not None and gallery.cams is not None and query.cams is not None
    shots: dict[tuple[int, int], list[int]] = {}
    for row, shot in enumerate(zip(gallery.ids.tolist(), gallery.cams.tolist(), strict=True)):
        if shot[1] in cameras:
            shots.setdefault(shot, []).append(row)
    trials = []
    for trial in range(TRIALS):
        draw = random.Random(trial)
        rows = torch.tensor([draw.choice(shots[shot]) for shot in sorted(shots)], dtype=torch.int64)
        searched = {3: rows[gallery.cams[rows] != 2], 6: rows}  # camera 2 is at the location of camera 3
        trials.append(
            tuple(
                Comparison((query.cams == camera).nonzero()[:, 0], searched[camera])
                for camera in INFRARED
                if (query.cams == camera).any()
            )
        )
    return Protocol(tuple(trials), distinct_identities=True)


def _read_ids(root: Path, name: str) -> list[int]:
    """The identities in a file of numbers with commas or blanks between them."""
    file = entry_named(root, name)
    if file is None:
        raise InputError(f"{root}: {name} is missing; {EXPECTED}")
    identities = []
    for number, line in text_lines(file):
        place = f"{file}, line {number}"
        try:
            identities += [int(word) for word in line.replace(",", " ").split()]
        except ValueError as error:
            raise InputError(
                f"{file}: expected identities such as 1,2,4, got {line[:40]!r} in line {number}"
            ) from error
        for identity in identities:
            check_number(place, "identity", identity)
    return identities


def _identity_folders(root: Path, camera: int, findings: Findings) -> dict[int, Path]:
    """The folder of each identity of a camera."""
    folder, found = folder_named(root, f"cam{camera}"), {}
    for entry in [] if folder is None else entries(folder):
        path = Path(entry.path)
        if entry.is_dir() and entry.name.isdecimal():
            found[int(entry.name)] = path
        elif images := count_images(path):
            reason = Reason.HIDDEN if is_ignored(entry.name) else Reason.ELSEWHERE
            findings.leave_out(reason, f"cam{camera}/{entry.name}", images)
    return found


def _note_identities(cameras: dict[int, dict[int, Path]], listed: list[int], findings: Findings) -> None:
    """Report images of identities in no list, and listed identities without images."""
    known = set(listed)
    for folders in cameras.values():
        for identity, folder in folders.items():
            if identity not in known:
                findings.leave_out(Reason.UNLISTED, folder, max(1, count_images(folder)))
    if missing := sorted(known - {identity for folders in cameras.values() for identity in folders}):
        findings.warnings.append(f"{len(missing)} listed identities have no folder in any camera, such as {missing[0]}")


def _images(
    root: Path, folders: dict[int, dict[int, Path]], ids: list[int], cameras: tuple[int, ...], findings: Findings
) -> dict[Path, Label]:
    """The images of ``ids``, identity by identity and camera by camera."""
    images = {
        path: Label(identity, camera)
        for identity in sorted(set(ids))
        for camera in cameras
        if identity in folders[camera]
        for path in list_images(folders[camera][identity], findings)
    }
    if not images:
        names = ", ".join(f"cam{camera}/" for camera in cameras)
        raise InputError(
            f"{printable(root)}: no images of {len(ids)} identities in {names}{findings.summary()}; {EXPECTED}"
        )
    return images
