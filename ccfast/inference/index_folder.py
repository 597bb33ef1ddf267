"""The folder of a gallery's index: its files, and which folders may become one."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ccfast._errors import InputError
from ccfast._files import PREFIX, array_content, given_path, write_all_whole

log = logging.getLogger(__name__)

#: The files of an index: features [N, D] float32, and the image of each row.
FEATURES, NAMES = "features.npy", "names.json"

VERSION = 1

#: The beginning of names.json, by which an index is recognised even if the rest of the file is lost.
_BEGINNING = re.compile(rb'\{\s*"version": \d+,\s*"encoder": "')


@dataclass(frozen=True)
class Entry:
    """The state of a file when it was read; ``name`` is relative to the gallery.

    ``problem``: why it cannot be read as an image; empty for images.
    """

    name: str
    size: int
    modified: int
    changed: int
    sha256: str
    problem: str = ""

    def looks_like(self, stat: os.stat_result) -> bool:
        """Whether a file with this ``stat`` is unchanged, without reading it."""
        return (self.size, self.modified, self.changed) == (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@dataclass(frozen=True, eq=False)
class Known:
    """The content of an index: the file of each row, its feature [N, D], and the files that cannot be read."""

    entries: list[Entry]
    features: Tensor
    unreadable: list[Entry]


@dataclass(frozen=True)
class Maker:
    """What an index depends on besides the files: the encoder, and for unreadable files what reads the images."""

    encoder: str
    num_features: int
    reader: str


def given_index(path: str | os.PathLike[str]) -> Path:
    """The folder that ``--index`` names, checked because its files may be replaced.

    Raises:
        InputError: a file, or a folder with other files than those of an index.
    """
    index = given_path("--index", path)
    expected = "--index: expected a new or empty folder, or an index of ccfast search, got"
    if not index.exists():
        return index
    if not index.is_dir():
        raise InputError(f"{expected} the file {index}")
    held = sorted(entry.name for entry in index.iterdir() if not entry.name.startswith(PREFIX))
    if held and not _is_index(index):
        more = f" and {len(held) - 1:,} more" if len(held) > 1 else ""
        raise InputError(f"{expected} {index}, which holds {held[0]}{more}")
    return index


def _is_index(index: Path) -> bool:
    try:
        with open(index / NAMES, "rb") as file:
            return _BEGINNING.match(file.read(1000)) is not None
    except OSError:
        return False


def read_index(index: Path, maker: Maker) -> Known | None:
    """The content of an index; None if there is none, or if it cannot be used, which is logged."""
    if not (index / NAMES).exists() and not (index / FEATURES).exists():
        return None
    try:
        content = _names(index)
        if content["version"] != VERSION or content["encoder"] != maker.encoder:
            log.info("%s: belongs to another encoder and is made again (--index keeps one per encoder)", index)
            return None
        entries = _entries(content["images"])
        features = _features(index, len(entries), maker.num_features)
        unreadable = _entries(content.get("unreadable")) if content.get("reader") == maker.reader else []
    except _DamagedError as error:
        log.warning("%s: damaged (%s); it is made again", index, error)
        return None
    return Known(entries, torch.from_numpy(features), unreadable)


class _DamagedError(Exception):
    """The message for the user if an index cannot be used."""


def _names(index: Path) -> dict[str, Any]:
    try:
        content = json.loads((index / NAMES).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _DamagedError(f"{NAMES} cannot be read") from error
    if not isinstance(content, dict) or not {"version", "encoder", "images"} <= content.keys():
        raise _DamagedError(f"{NAMES} is incomplete")
    return content


def _entries(rows: Any) -> list[Entry]:
    try:
        return [Entry(**row) for row in rows]
    except TypeError as error:
        raise _DamagedError(f"{NAMES} is incomplete") from error


def _features(index: Path, rows: int, columns: int) -> np.ndarray:
    try:
        features = np.load(index / FEATURES, allow_pickle=False)
        found = f"{features.dtype} {features.shape}"
    except Exception as error:  # NumPy raises many kinds of errors for damaged bytes
        raise _DamagedError(f"{FEATURES} is missing or cannot be read") from error
    if features.dtype != np.float32 or features.shape != (rows, columns):
        raise _DamagedError(f"{FEATURES} has {found}, not float32 {(rows, columns)}")
    if not (np.abs(np.linalg.norm(features, axis=1) - 1) < 1e-2).all():
        raise _DamagedError(f"{FEATURES} has rows without unit norm")
    return features


def write_index(index: Path, maker: Maker, known: Known) -> None:
    """Write the index; if the disk cannot be written to, the search continues."""
    content = {
        "version": VERSION,
        "encoder": maker.encoder,
        "images": _as_rows(known.entries, without=("problem",)),
        "reader": maker.reader,
        "unreadable": _as_rows(known.unreadable),
    }
    try:
        index.mkdir(exist_ok=True)
        names = json.dumps(content, indent=1)  # in ASCII, which preserves bytes of names that are not text
        write_all_whole({index / NAMES: names, index / FEATURES: array_content(known.features.numpy())})
    except OSError as error:
        log.warning("--index: %s cannot be written, so the next search must extract again: %s", index, error)
        return
    log.info("index of the gallery: %s", index)


def _as_rows(entries: Iterable[Entry], without: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    return [{name: value for name, value in asdict(entry).items() if name not in without} for entry in entries]
