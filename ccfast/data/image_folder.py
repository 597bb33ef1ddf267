"""Any folder of images: to learn from, and, where query/ and gallery/ are there, to measure with."""

from __future__ import annotations

from pathlib import Path

from ccfast._errors import InputError
from ccfast.data.folders import contents, existing_folder
from ccfast.data.image_files import EXTENSIONS, list_images
from ccfast.data.market import LAYOUTS
from ccfast.data.parts import GALLERY, QUERY, TRAIN, Label, read_parts
from ccfast.data.reid_data import ReIDData
from ccfast.data.transforms import image_views

EXPECTED = (
    f"expected images ({', '.join(EXTENSIONS)}) in it or in its sub-folders, or {TRAIN}/, {QUERY}/ and {GALLERY}/"
)


def load_image_folder(data_dir: str | Path, *, bad_images: str = "refuse", workers: int = 0) -> ReIDData:
    """The images in ``data_dir``/train, or all those in ``data_dir`` where there is no such folder; no cameras.

    Where a part has all of its images in sub-folders, the first sub-folder's name is the identity; else identities are
    unknown. ``data_dir``/query and /gallery need identities, and may both be missing: then there is nothing to measure
    with.
    """
    root = existing_folder(data_dir)
    folders = {name: root / name for name in (TRAIN, QUERY, GALLERY) if (root / name).is_dir()} or {TRAIN: root}
    _check_folders(root, folders)
    files = {name: list_images(folder, below=True) for name, folder in folders.items()}
    names = {name: _identities(folders[name], paths) for name, paths in files.items()}
    for name, paths in files.items():
        if not paths:
            raise InputError(f"--data-dir: {folders[name]} holds {contents(folders[name])}; {EXPECTED}")
        if name != TRAIN and not names[name]:
            raise InputError(f"{folders[name]}: expected a sub-folder for each identity")
    numbers = {
        text: number for number, text in enumerate(sorted({text for of in names.values() for text in of.values()}))
    }
    known = {path: Label(numbers[text]) for of in names.values() for path, text in of.items()}
    parts = read_parts(files, lambda path: known.get(path, Label(None)), bad_images=bad_images, workers=workers)
    return ReIDData("folder", parts[TRAIN], parts.get(QUERY), parts.get(GALLERY), channels=3, make_views=image_views)


def _check_folders(root: Path, folders: dict[str, Path]) -> None:
    for layout in LAYOUTS:  # else its query and gallery would be learnt from
        if layout.is_root(root):
            raise InputError(f"--data-dir: {root} holds {layout.train}/; try --dataset {layout.name}")
    if TRAIN not in folders or (QUERY in folders) != (GALLERY in folders):
        raise InputError(
            f"{root}: holds {', '.join(f'{name}/' for name in folders)}; expected {TRAIN}/, or {TRAIN}/, {QUERY}/ and "
            f"{GALLERY}/"
        )


def _identities(folder: Path, paths: list[Path]) -> dict[Path, str]:
    """Of each image the first folder below ``folder`` that it lies in; none where some lie in ``folder`` itself."""
    if any(path.parent == folder for path in paths):
        return {}
    return {path: path.relative_to(folder).parts[0] for path in paths}
