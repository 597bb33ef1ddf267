"""Folders in Market-1501's layout: three folders of images that are named after identity and camera."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ccfast._errors import InputError
from ccfast.data.image_files import ImageFiles, leave_out_bad
from ccfast.data.reid_data import Part, ReIDData, Views

TRAIN, QUERY, GALLERY = "bounding_box_train", "query", "bounding_box_test"
EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
EXPECTED = (
    f"expected Market-1501's layout: {TRAIN}/, {QUERY}/ and {GALLERY}/ with images named "
    "PID_cCAMERA..., such as 0002_c1s1_000451_03.jpg"
)

#: Detections that are neither a person of the data set nor background; the protocol leaves them out.
JUNK = -1

#: How deep below --data-dir the three folders are looked for.
SEARCH_DEPTH = 3

_NAME = re.compile(r"(?P<id>-?\d+)_(?:c(?P<cam>\d+))?")


def load_market(data_dir: str | Path, *, bad_images: str = "refuse", workers: int = 0) -> ReIDData:
    """Images below ``data_dir``; identities are for metrics only.

    Junk (identity -1) is left out; background (0) stays in the gallery as a distractor, as the authors have it.
    ``query`` and ``bounding_box_test`` may both be missing: then there is nothing to measure with.
    """
    root = find_root(Path(data_dir))
    files = {name: list_images(root / name) for name in (TRAIN, QUERY, GALLERY) if (root / name).is_dir()}
    _check_folders(root, files)
    files = leave_out_bad(files, skip=bad_images == "skip", workers=workers)
    parts = {name: _part(paths) for name, paths in files.items()}
    _check_parts(root, parts)
    return ReIDData("market1501", parts[TRAIN], parts.get(QUERY), parts.get(GALLERY), channels=3, make_views=_views)


def find_root(data_dir: Path) -> Path:
    """The folder at or below ``data_dir`` that holds ``bounding_box_train``."""
    if not data_dir.is_dir():
        raise InputError(f"--data-dir: no such folder: {data_dir}")
    roots = [folder for folder in _folders(data_dir, SEARCH_DEPTH) if (folder / TRAIN).is_dir()]
    if not roots:
        found = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in data_dir.iterdir())
        listed = ", ".join(found[:10]) + (f" and {len(found) - 10} more" if len(found) > 10 else "")
        raise InputError(f"--data-dir: {data_dir} holds {listed or 'nothing'}; {EXPECTED}")
    if len(roots) > 1:
        raise InputError(f"--data-dir: several data sets below {data_dir}: {', '.join(map(str, roots))}; name one")
    return roots[0]


def _folders(top: Path, depth: int) -> Iterator[Path]:
    yield top
    if depth and top.name not in (TRAIN, QUERY, GALLERY):
        for entry in sorted(os.scandir(top), key=lambda entry: entry.name):
            if entry.is_dir() and not entry.name.startswith("."):
                yield from _folders(Path(entry.path), depth - 1)


def list_images(folder: Path) -> list[Path]:
    """The folder's images in the order of their names, junk left out."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS)
    strange = [path.name for path in paths if not _NAME.match(path.name)]
    if strange:
        raise InputError(f"{folder}: {len(strange)} image(s) with a name like {strange[0]}; {EXPECTED}")
    return [path for path in paths if identity(path) != JUNK]


def identity(path: Path) -> int:
    """The number that an image's name begins with."""
    return int(_NAME.match(path.name)["id"])  # type: ignore[index]


def camera(path: Path) -> int | None:
    """The number after ``_c`` in an image's name, if it has one."""
    cam = _NAME.match(path.name)["cam"]  # type: ignore[index]
    return None if cam is None else int(cam)


def _check_folders(root: Path, files: dict[str, list[Path]]) -> None:
    if (QUERY in files) != (GALLERY in files):
        missing = GALLERY if QUERY in files else QUERY
        raise InputError(f"{root}: {missing}/ is missing; expected both {QUERY}/ and {GALLERY}/ or neither")
    for name, paths in files.items():
        if not paths:
            raise InputError(f"{root / name}: no images ({', '.join(EXTENSIONS)}); {EXPECTED}")


def _check_parts(root: Path, parts: dict[str, Part]) -> None:
    for name, part in parts.items():
        if not len(part):
            raise InputError(f"{root / name}: no image that can be read")
    if QUERY in parts and (parts[QUERY].cams is None) != (parts[GALLERY].cams is None):
        raise InputError(f"{root}: cameras (_cN in the names) in one of {QUERY}/ and {GALLERY}/ only")


def _part(paths: list[Path]) -> Part:
    cams = [camera(path) for path in paths]
    known = [cam for cam in cams if cam is not None]
    if known and len(known) < len(cams):
        example = paths[cams.index(None)]
        raise InputError(f"{example}: has no camera (_cN) in its name while others in its folder have")
    ids = torch.tensor([identity(path) for path in paths], dtype=torch.int64)
    return Part(ImageFiles(paths), ids, torch.tensor(known, dtype=torch.int64) if known else None)


def _views(encoder: Any) -> Views:
    from ccfast.data.transforms import image_views

    return image_views(encoder)
