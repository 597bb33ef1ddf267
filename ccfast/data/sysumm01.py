"""SYSU-MM01: visible and infrared images (Wu et al., ICCV 2017)."""

from __future__ import annotations

import random
from pathlib import Path

import torch

from ccfast._errors import InputError
from ccfast.data.folders import find_root
from ccfast.data.image_files import list_images
from ccfast.data.parts import GALLERY, QUERY, TRAIN, Label, check_counts, read_parts
from ccfast.data.protocol import Comparison, Protocol
from ccfast.data.reid_data import Part, ReIDData
from ccfast.data.transforms import image_views

VISIBLE, INFRARED = (1, 2, 4, 5), (3, 6)

#: Visible cameras in rooms.
INDOOR = (1, 2)

TRIALS = 10

ID_LISTS = ("exp/train_id.txt", "exp/val_id.txt", "exp/test_id.txt")
EXPECTED = f"expected cam1/ to cam6/ with images such as cam1/0001/0001.jpg, and {', '.join(ID_LISTS)}"

#: Visible and infrared training images, infrared test images, visible test images (of which a trial takes a few).
PUBLISHED = {TRAIN: 22_258 + 11_909, QUERY: 3_803, GALLERY: 6_775}


def load_sysumm01(data_dir: str | Path, *, bad_images: str = "refuse", workers: int = 0) -> ReIDData:
    """SYSU-MM01 below ``data_dir``: learn from both kinds of images, search visible ones for infrared ones."""
    root = find_root(data_dir, lambda folder: (folder / "cam1").is_dir(), EXPECTED)
    train, val, test = (_read_ids(root, name) for name in ID_LISTS)
    files = {
        TRAIN: _images(root, train + val, VISIBLE + INFRARED),
        QUERY: _images(root, test, INFRARED),
        GALLERY: _images(root, test, VISIBLE),
    }
    check_counts("sysumm01", files, PUBLISHED)
    parts = read_parts(files, _label, bad_images=bad_images, workers=workers)
    query, gallery = parts[QUERY], parts[GALLERY]
    return ReIDData(
        "sysumm01",
        parts[TRAIN],
        query,
        gallery,
        channels=3,
        make_views=image_views,
        protocols=sysumm01_protocols(query, gallery),
    )


def sysumm01_protocols(query: Part, gallery: Part) -> dict[str, Protocol]:
    """``all_search`` among all visible cameras, ``indoor_search`` among those in rooms: single-shot, ten trials."""
    return {
        "all_search": _single_shot(query, gallery, VISIBLE),
        "indoor_search": _single_shot(query, gallery, INDOOR),
    }


def _single_shot(query: Part, gallery: Part, cameras: tuple[int, ...]) -> Protocol:
    """Trials whose gallery is one image for each identity and camera.

    Trial t draws as ``random.Random(t)`` chooses among sorted images, identity by identity and camera by camera: the
    galleries that published results on this data set are commonly measured with.
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
        searched = {3: rows[gallery.cams[rows] != 2], 6: rows}  # camera 2 stands where camera 3 does
        trials.append(
            tuple(
                Comparison((query.cams == camera).nonzero()[:, 0], searched[camera])
                for camera in INFRARED
                if (query.cams == camera).any()
            )
        )
    return Protocol(tuple(trials), distinct_identities=True)


def _read_ids(root: Path, name: str) -> list[int]:
    """The identities in a file of numbers with commas between them."""
    if not (root / name).is_file():
        raise InputError(f"{root}: {name} is missing; {EXPECTED}")
    text = (root / name).read_text(encoding="utf-8")
    try:
        return [int(number) for number in text.replace("\n", ",").split(",") if number.strip()]
    except ValueError as error:
        raise InputError(f"{root / name}: expected identities such as 1,2,4, got {text[:40]!r}") from error


def _images(root: Path, ids: list[int], cameras: tuple[int, ...]) -> list[Path]:
    """The images of ``ids``, identity by identity and camera by camera."""
    folders = (root / f"cam{camera}" / f"{identity:04d}" for identity in sorted(set(ids)) for camera in cameras)
    images = [path for folder in folders if folder.is_dir() for path in list_images(folder)]
    if not images:
        names = ", ".join(f"cam{camera}/" for camera in cameras)
        raise InputError(f"{root}: no images of {len(ids)} identities in {names}; {EXPECTED}")
    return images


def _label(path: Path) -> Label:
    return Label(int(path.parent.name), int(path.parent.parent.name.removeprefix("cam")))
