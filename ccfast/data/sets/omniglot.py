"""Omniglot (Lake et al., Science 2015): handwritten characters. A character is an identity, its writer a camera."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ccfast._errors import InputError, is_out_of_memory
from ccfast.data.drawings import drawing_views
from ccfast.data.findings import Findings, Reason
from ccfast.data.folders import find_root, folder_named
from ccfast.data.image_files import decode, leave_out_bad
from ccfast.data.listing import list_images
from ccfast.data.parts import LARGEST, check_number
from ccfast.data.reid_data import Part, ReIDData

#: The folder of the authors' 30 training alphabets.
BACKGROUND = "images_background"

#: Height and width of the images read from a folder; the files have 105.
SIZE = 64

#: The held-out alphabets: every third one, so ten of the 30, with 316 characters.
HELD_OUT = slice(2, None, 3)

#: The number of drawers of a held-out character whose drawings are queries: the first ones.
QUERY_DRAWERS = 2

ARRAYS = ("images", "identity", "drawer", "alphabet")
EXPECTED = (
    f"expected an .npz file with the arrays {', '.join(ARRAYS)}, or a folder with {BACKGROUND}/ALPHABET/CHARACTER/ "
    "and images such as 0709_01.png"
)


@dataclass(frozen=True)
class Drawings:
    """``N`` drawings: ``images`` [N, H, W] uint8, ink 0 on white; the others [N] integers."""

    images: np.ndarray
    identity: np.ndarray
    drawer: np.ndarray
    alphabet: np.ndarray


def load_omniglot(data_dir: str | Path, *, bad_images: str = "refuse", workers: int = 0) -> ReIDData:
    """Two thirds of the alphabets are for training; of the rest, two drawers are the query, the others the gallery."""
    path, findings = Path(data_dir), Findings()
    drawings = _from_npz(path) if path.is_file() else _from_folder(path, findings, bad_images, workers)
    alphabets = np.unique(drawings.alphabet)
    held_out = np.isin(drawings.alphabet, alphabets[HELD_OUT])
    if not held_out.any():
        raise InputError(f"{path}: expected at least {HELD_OUT.start + 1} alphabets, got {len(alphabets)}")
    query = held_out & np.isin(drawings.drawer, np.unique(drawings.drawer[held_out])[:QUERY_DRAWERS])
    if not (held_out & ~query).any():
        raise InputError(f"{path}: expected more than {QUERY_DRAWERS} drawers, or the gallery is empty")
    return ReIDData(
        "omniglot",
        _part(drawings, ~held_out),
        _part(drawings, query),
        _part(drawings, held_out & ~query),
        channels=1,
        make_views=drawing_views,
        findings=findings,
    )


def _part(drawings: Drawings, rows: np.ndarray) -> Part:
    """The drawings ``rows`` with bright ink on a dark background, [N, 1, H, W] uint8."""
    ids, drawers = (torch.from_numpy(column[rows].astype(np.int64)) for column in (drawings.identity, drawings.drawer))
    return Part(torch.from_numpy(255 - drawings.images[rows])[:, None], ids, drawers)


def _from_npz(path: Path) -> Drawings:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ARRAYS if name in file}
    except Exception as error:  # NumPy and zipfile can raise any error for damaged files
        if is_out_of_memory(error):
            raise
        raise InputError(f"--data-dir: {path}: {error}; {EXPECTED}") from error
    if missing := [name for name in ARRAYS if name not in arrays]:
        raise InputError(f"--data-dir: {path}: holds no {', '.join(missing)}; {EXPECTED}")
    drawings = Drawings(**arrays)
    if drawings.images.dtype != np.uint8 or drawings.images.ndim != 3 or not len(drawings.images):
        raise InputError(
            f"{path}: images: expected uint8 [N, H, W], got {drawings.images.dtype} {drawings.images.shape}"
        )
    for name in ARRAYS[1:]:
        column = getattr(drawings, name)
        if column.shape != drawings.images.shape[:1] or column.dtype.kind not in "iu":
            raise InputError(
                f"{path}: {name}: expected {len(drawings.images)} integers, got {column.dtype} {column.shape}"
            )
        if int(column.max()) > LARGEST:
            raise InputError(f"{path}: {name}: expected numbers of at most {LARGEST}, got {column.max()}")
    return drawings


def _from_folder(path: Path, findings: Findings, bad_images: str, workers: int) -> Drawings:
    """Alphabets and characters are numbered in the order of their names."""
    root = folder_named(find_root(path, lambda folders: BACKGROUND in folders, EXPECTED), BACKGROUND)
    assert root is not None
    found = []
    for file in list_images(root, findings, below=True):
        if len(file.relative_to(root).parts) == 3:
            found.append(file)
        else:
            findings.leave_out(Reason.ELSEWHERE, file)
    files = leave_out_bad({BACKGROUND: found}, skip=bad_images == "skip", workers=workers)[BACKGROUND]
    if len(files) < len(found):
        findings.leave_out(Reason.BAD, next(file for file in found if file not in files), len(found) - len(files))
    if not files:
        raise InputError(f"{root}: no images{findings.summary()}; {EXPECTED}")
    drawer = [_drawer(file) for file in files]
    images = np.stack([_read(file) for file in files])
    identity = np.unique([str(file.parent) for file in files], return_inverse=True)[1]
    alphabet = np.unique([str(file.parent.parent) for file in files], return_inverse=True)[1]
    return Drawings(images, identity, np.array(drawer), alphabet)


def _drawer(file: Path) -> int:
    try:
        drawer = int(file.stem.split("_")[1])
    except (ValueError, IndexError) as error:
        raise InputError(f"{file}: its name has no drawer's number; {EXPECTED}") from error
    check_number(file, "drawer", drawer)
    return drawer


def _read(file: Path) -> np.ndarray:
    from PIL.Image import Resampling

    return np.asarray(decode(file).convert("L").resize((SIZE, SIZE), Resampling.BILINEAR))
