"""Any folder of images: for training, and for evaluation if it has query/ and gallery/."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ccfast._errors import InputError
from ccfast.data import formats
from ccfast.data.findings import Findings, printable
from ccfast.data.folders import contents, existing_folder, folder_named, note_beside, only_root, roots_below
from ccfast.data.listing import entries, list_images
from ccfast.data.parts import GALLERY, QUERY, TRAIN, Label, photographs, read_parts
from ccfast.data.reid_data import ReIDData
from ccfast.data.sets.market import LAYOUTS

EXPECTED = f"expected {formats.EXAMPLES} in it or in its sub-folders, or {TRAIN}/, {QUERY}/ and {GALLERY}/"

#: Names, lower case, of folders that are parts of a data set, not identities.
PARTS = {"test", "testing", "val", "valid", "validation", "dev", "training", "trainval", "probe"}


def load_image_folder(data_dir: str | Path, *, bad_images: str = "refuse", workers: int = 0) -> ReIDData:
    """The images in ``data_dir``/train, or if there is no such folder, all images in ``data_dir``; without cameras.

    The folder with train/ may also be a few levels below ``data_dir``. If all images of a part are in sub-folders, the
    name of the first sub-folder is the identity; otherwise identities are unknown. ``data_dir``/query and /gallery need
    identities. If they are missing, there is no evaluation.
    """
    top, findings = existing_folder(data_dir), Findings()
    roots = roots_below(top, _is_root)
    root = only_root(top, roots) if roots else top
    named = {name: folder_named(root, name) for name in (TRAIN, QUERY, GALLERY)}
    folders = {name: folder for name, folder in named.items() if folder is not None} or {TRAIN: root}
    _check_folders(root, folders)
    files = {name: list_images(folder, findings, below=True) for name, folder in folders.items()}
    if not files[TRAIN]:
        train = folders[TRAIN]
        raise InputError(f"--data-dir: {train} holds {contents(train)}{findings.summary()}; {EXPECTED}")
    files = {name: paths for name, paths in files.items() if paths}
    if root not in folders.values():
        note_beside(root, folders.values(), findings)
    else:
        _warn_of_parts(root, findings)
    names = {name: _identities(folders[name], paths) for name, paths in files.items()}
    numbers = {
        text: number for number, text in enumerate(sorted({text for of in names.values() for text in of.values()}))
    }
    known = {path: Label(numbers[text]) for of in names.values() for path, text in of.items()}
    parts = read_parts(
        files, lambda path: known.get(path, Label(None)), findings, bad_images=bad_images, workers=workers
    )
    return photographs("folder", parts, findings)


def _is_root(folders: Collection[str]) -> bool:
    return TRAIN in folders or any(layout.is_root(folders) for layout in LAYOUTS)


def _check_folders(root: Path, folders: dict[str, Path]) -> None:
    for layout in LAYOUTS:  # otherwise its query and gallery would become training images
        if folder_named(root, layout.train) is not None:
            raise InputError(f"--data-dir: {root} holds {layout.train}/; try --dataset {layout.name}")
    if TRAIN not in folders:
        raise InputError(
            f"{root}: holds {', '.join(f'{name}/' for name in folders)}; expected {TRAIN}/, or {TRAIN}/, {QUERY}/ and "
            f"{GALLERY}/"
        )


def _warn_of_parts(root: Path, findings: Findings) -> None:
    """Without train/, all sub-folders are training images; warn if their names are those of parts."""
    if named := [entry.name for entry in entries(root) if entry.is_dir() and entry.name.lower() in PARTS]:
        findings.warnings.append(
            f"{printable(root)} has no {TRAIN}/, so all its sub-folders are used for training as identities, "
            f"including {', '.join(f'{name}/' for name in named)}"
        )


def _identities(folder: Path, paths: list[Path]) -> dict[Path, str]:
    """The first folder below ``folder`` for each image; None if some images are in ``folder`` itself."""
    if any(path.parent == folder for path in paths):
        return {}
    return {path: path.relative_to(folder).parts[0] for path in paths}
