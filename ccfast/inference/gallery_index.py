"""The features of a gallery's images, kept in a folder beside it and updated when files change."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ccfast._errors import InputError
from ccfast._files import array_content, write_all_whole
from ccfast._progress import progress
from ccfast.data import Part
from ccfast.data.findings import Findings, Reason
from ccfast.data.image_files import ImageFiles, leave_out_bad, pixels_at_most
from ccfast.data.image_list import list_files, say_what_was_read
from ccfast.training.trained import Trained

log = logging.getLogger(__name__)

#: The files of an index: features [N, D] float32, and the image of each row.
FEATURES, NAMES = "features.npy", "names.json"

VERSION = 1


@dataclass(frozen=True)
class Entry:
    """The state of a file when its feature was extracted; ``name`` is relative to the gallery."""

    name: str
    size: int
    modified: int
    changed: int
    sha256: str

    def looks_like(self, stat: os.stat_result) -> bool:
        """Whether a file with this ``stat`` is unchanged, without reading it."""
        return (self.size, self.modified, self.changed) == (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


#: The content of an index: the file of each row, and its feature [N, D].
Known = tuple[list[Entry], Tensor]


@dataclass(frozen=True)
class _File:
    """A file of the gallery, and the row of its feature in the index; None if it must be extracted."""

    path: Path
    entry: Entry
    row: int | None


@dataclass(frozen=True)
class Gallery:
    """The images of the gallery: their paths, and their features [N, D] of unit norm on the encoder's device."""

    paths: list[str]
    features: Tensor


def index_beside(gallery: Path) -> Path:
    """The folder of a gallery's index: ``photos.index`` for ``photos``."""
    whole = gallery.resolve()
    return whole.with_name(f"{whole.name}.index")


def indexed_gallery(trained: Trained, path: str | Path, index: Path | None = None) -> Gallery:
    """The images in ``path`` (``--gallery``) and its sub-folders with their features; updates the index.

    The features of unchanged files (by size and times, or else by content) come from the index; the others are
    extracted. An index of another encoder, or a damaged one, is made again. If it cannot be written, a warning says so.

    Args:
        index: its folder; None: :func:`index_beside` the gallery.
    """
    files, findings = list_files("--gallery", path)
    top = Path(path) if Path(path).is_dir() else Path(path).parent
    index = index_beside(Path(path)) if index is None else index
    encoder = fingerprint(trained)
    known = _read(index, encoder, trained.encoder.num_features)
    found = _compare(files, [file.relative_to(top).as_posix() for file in files], known)
    if known is not None:
        _say_what_changed(index, known[0], found)
    found = _readable(found, trained, findings)
    if not found:
        raise InputError(f"--gallery: {path}: no image that can be read")
    say_what_was_read(path, len(found), findings)
    features = _features(found, known, trained)
    entries = [file.entry for file in found]
    if known is None or entries != known[0]:
        _write(index, encoder, entries, features)
    return Gallery([str(file.path) for file in found], features.to(trained.device))


def _readable(found: list[_File], trained: Trained, findings: Findings) -> list[_File]:
    """``found`` without new unreadable images; these are an error unless the run's ``bad_images`` is "skip"."""
    new = [file.path for file in found if file.row is None]
    with pixels_at_most(trained.config.max_image_pixels):
        skip = trained.config.bad_images == "skip"
        good = set(leave_out_bad({"gallery": new}, skip=skip, workers=trained.config.workers)["gallery"])
    bad = [path for path in new if path not in good]
    if bad:
        findings.leave_out(Reason.BAD, bad[0], len(bad))
    return [file for file in found if file.row is not None or file.path in good]


def _features(found: list[_File], known: Known | None, trained: Trained) -> Tensor:
    """The features [N, D] of the files, on the CPU: from the index, or by the encoder."""
    features = torch.empty(len(found), trained.encoder.num_features)
    new = [place for place, file in enumerate(found) if file.row is None]
    old = [(place, file.row) for place, file in enumerate(found) if file.row is not None]
    if old:
        assert known is not None
        features[[place for place, _ in old]] = known[1][[row for _, row in old]]
    if new:
        with pixels_at_most(trained.config.max_image_pixels):
            images = ImageFiles([found[place].path for place in new])
        features[new] = trained.extract(Part(images, None), "gallery").cpu()
    return features


def fingerprint(trained: Trained) -> str:
    """A digest of what features depend on besides the images: the encoder's weights, precision and transforms."""
    digest = hashlib.sha256()
    for name, value in trained.encoder.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    config = trained.config
    told = (config.arch, config.pooling, config.height, config.width, config.amp, trained.view.drawings)
    digest.update(repr(told).encode())
    return digest.hexdigest()


def _compare(files: list[Path], names: list[str], known: Known | None) -> list[_File]:
    """The current state of each file, with the row of its feature in the index if the file has not changed."""
    before = {} if known is None else {entry.name: (row, entry) for row, entry in enumerate(known[0])}
    found = []
    for path, name in progress(zip(files, names, strict=True), "check the index", len(files)):
        row, entry = before.get(name, (None, None))
        try:
            stat = path.stat()
            if entry is None or not entry.looks_like(stat):
                now = Entry(name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, _sha256(path))
                row = row if entry is not None and entry.sha256 == now.sha256 else None
                entry = now
        except OSError as error:  # a broken link; the check of the images reports it
            entry, row = Entry(name, 0, 0, 0, f"{error.strerror}"), None
        found.append(_File(path, entry, row))
    return found


def _say_what_changed(index: Path, before: list[Entry], found: list[_File]) -> None:
    """Log how many files are new, changed and removed since the index was written."""
    names = {entry.name for entry in before}
    new = [file.entry.name for file in found if file.row is None]
    counts = {
        "new": sum(name not in names for name in new),
        "changed": sum(name in names for name in new),
        "removed": len(names - {file.entry.name for file in found}),
    }
    told = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    log.info("%s: %s images; since it was written: %s", index, f"{len(names):,}", told or "no file has changed")


def _read(index: Path, encoder: str, num_features: int) -> Known | None:
    """The entries and features of an index; None if there is none, or if it cannot be used, which is logged."""
    if not (index / NAMES).exists() and not (index / FEATURES).exists():
        return None
    try:
        content: Any = json.loads((index / NAMES).read_text(encoding="utf-8"))
        if content["version"] != VERSION or content["encoder"] != encoder:
            log.info("%s: belongs to another encoder and is made again (--index keeps one per encoder)", index)
            return None
        entries = [Entry(**entry) for entry in content["images"]]
        features = np.load(index / FEATURES, allow_pickle=False)
        if features.dtype != np.float32 or features.shape != (len(entries), num_features):
            raise ValueError(f"{FEATURES} has {features.dtype} {features.shape}, not {len(entries)} x {num_features}")
        if not (np.abs(np.linalg.norm(features, axis=1) - 1) < 1e-2).all():
            raise ValueError(f"{FEATURES} has rows without unit norm")
        return entries, torch.from_numpy(features)
    except Exception as error:  # JSON and NumPy raise many kinds of errors for damaged bytes
        log.warning("%s: damaged (%s: %s); it is made again", index, type(error).__name__, str(error)[:200])
        return None


def _write(index: Path, encoder: str, entries: list[Entry], features: Tensor) -> None:
    """Write the index; if the disk cannot be written to, the search continues."""
    content = {"version": VERSION, "encoder": encoder, "images": [asdict(entry) for entry in entries]}
    try:
        index.mkdir(exist_ok=True)
        names = json.dumps(content, indent=1)  # in ASCII, which preserves bytes of names that are not text
        write_all_whole({index / FEATURES: array_content(features.numpy()), index / NAMES: names})
    except OSError as error:
        log.warning("--index: %s cannot be written, so the next search must extract again: %s", index, error)
        return
    log.info("index of the gallery: %s", index)


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with open(file, "rb") as opened:
        while block := opened.read(2**20):
            digest.update(block)
    return digest.hexdigest()
