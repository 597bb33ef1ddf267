"""The features of a gallery's images, kept in a folder beside it and brought up to date with the files."""

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

#: The files of an index: features [N, D] float32, and what each row is of.
FEATURES, NAMES = "features.npy", "names.json"

VERSION = 1


@dataclass(frozen=True)
class Entry:
    """A file of the gallery as it was when its feature was extracted; ``name`` is relative to the gallery."""

    name: str
    size: int
    modified: int
    changed: int
    sha256: str

    def looks_like(self, stat: os.stat_result) -> bool:
        """Whether a file of this ``stat`` need not be read to know that it is the same."""
        return (self.size, self.modified, self.changed) == (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


#: What an index holds: of each row the file, and its feature [N, D].
Known = tuple[list[Entry], Tensor]


@dataclass(frozen=True)
class _File:
    """A file of the gallery, and the row of its feature in the index; None where it has to be extracted."""

    path: Path
    entry: Entry
    row: int | None


@dataclass(frozen=True)
class Gallery:
    """The images that are searched: their paths, and their features [N, D] of unit norm on the encoder's device."""

    paths: list[str]
    features: Tensor


def index_beside(gallery: Path) -> Path:
    """Where the index of a gallery is kept: ``photos.index`` for the folder ``photos``."""
    whole = gallery.resolve()
    return whole.with_name(f"{whole.name}.index")


def indexed_gallery(trained: Trained, path: str | Path, index: Path | None = None) -> Gallery:
    """The images at or below ``path`` (``--gallery``) with their features; the index is brought up to date.

    Features are those in the index where the files are the same (their size and times are, or else their content), and
    are extracted for the others. An index of another encoder, or one that is damaged, is made anew. Where none can be
    written, a warning says so.

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
    """``found`` without new images that cannot be read; refused unless the run's ``bad_images`` is "skip"."""
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
    """What features depend on beside the images: the encoder's weights, its precision and its transforms."""
    digest = hashlib.sha256()
    for name, value in trained.encoder.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    config = trained.config
    told = (config.arch, config.pooling, config.height, config.width, config.amp, trained.view.drawings)
    digest.update(repr(told).encode())
    return digest.hexdigest()


def _compare(files: list[Path], names: list[str], known: Known | None) -> list[_File]:
    """Each file as it is now, with the row of its feature in the index where it has not changed."""
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
        except OSError as error:  # a link to nothing: the check of the images names it
            entry, row = Entry(name, 0, 0, 0, f"{error.strerror}"), None
        found.append(_File(path, entry, row))
    return found


def _say_what_changed(index: Path, before: list[Entry], found: list[_File]) -> None:
    """How many files are new, changed and gone since the index was written."""
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
    """The entries and features of an index; None where there is none, or none to use, which is said."""
    if not (index / NAMES).exists() and not (index / FEATURES).exists():
        return None
    try:
        content: Any = json.loads((index / NAMES).read_text(encoding="utf-8"))
        if content["version"] != VERSION or content["encoder"] != encoder:
            log.info("%s: of another encoder; it is made anew (--index keeps one for each)", index)
            return None
        entries = [Entry(**entry) for entry in content["images"]]
        features = np.load(index / FEATURES, allow_pickle=False)
        if features.dtype != np.float32 or features.shape != (len(entries), num_features):
            raise ValueError(f"{FEATURES} holds {features.dtype} {features.shape}, not {len(entries)} x {num_features}")
        if not (np.abs(np.linalg.norm(features, axis=1) - 1) < 1e-2).all():
            raise ValueError(f"{FEATURES} has rows that have not unit norm")
        return entries, torch.from_numpy(features)
    except Exception as error:  # JSON and NumPy raise whatever the bytes lead them to
        log.warning("%s: damaged (%s: %s); it is made anew", index, type(error).__name__, str(error)[:200])
        return None


def _write(index: Path, encoder: str, entries: list[Entry], features: Tensor) -> None:
    """Write the index; a gallery on a disk that cannot be written to is searched all the same."""
    content = {"version": VERSION, "encoder": encoder, "images": [asdict(entry) for entry in entries]}
    try:
        index.mkdir(exist_ok=True)
        names = json.dumps(content, indent=1)  # in ASCII: a name's bytes that are no text come back as they were
        write_all_whole({index / FEATURES: array_content(features.numpy()), index / NAMES: names})
    except OSError as error:
        log.warning("--index: %s cannot be written, so nothing is kept for the next search: %s", index, error)
        return
    log.info("index of the gallery: %s", index)


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with open(file, "rb") as opened:
        while block := opened.read(2**20):
            digest.update(block)
    return digest.hexdigest()
