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
from ccfast.data.findings import Reason
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
    """The images at or below ``path`` (``--gallery``), with the features that are in the index where the files are the
    same, and new ones for the others; the index is then written.

    A file is the same where its size and its times are, or else its content. An index of another encoder, or one that
    is damaged, is made anew. Where none can be written, a warning says so.

    Args:
        index: its folder; None: :func:`index_beside` the gallery.
    """
    files, findings = list_files("--gallery", path)
    top = Path(path) if Path(path).is_dir() else Path(path).parent
    index = index_beside(Path(path)) if index is None else index
    encoder = fingerprint(trained)
    known = _read(index, encoder, trained.encoder.num_features)
    names = [file.relative_to(top).as_posix() for file in files]
    entries, rows = _compare(files, names, known)
    new = [number for number, row in enumerate(rows) if row is None]
    _say(index, known, names, entries, new)
    with pixels_at_most(trained.config.max_image_pixels):
        skip = trained.config.bad_images == "skip"
        added = [files[number] for number in new]
        good = leave_out_bad({"gallery": added}, skip=skip, workers=trained.config.workers)["gallery"]
        images = ImageFiles(good)
    bad = set(added) - set(good)
    if bad:
        findings.leave_out(Reason.BAD, next(file for file in added if file in bad), len(bad))
    kept = [number for number, file in enumerate(files) if file not in bad]
    if not kept:
        raise InputError(f"--gallery: {path}: no image that can be read")
    say_what_was_read(path, len(kept), findings)
    features = torch.empty(len(kept), trained.encoder.num_features)
    old = [(place, row) for place, number in enumerate(kept) if (row := rows[number]) is not None]
    if old:
        assert known is not None
        features[[place for place, _ in old]] = known[1][[row for _, row in old]]
    if good:
        places = [place for place, number in enumerate(kept) if rows[number] is None]
        features[places] = trained.extract(Part(images, None), "gallery").cpu()
    if known is None or [entries[number] for number in kept] != known[0]:
        _write(index, encoder, [entries[number] for number in kept], features)
    return Gallery([str(files[number]) for number in kept], features.to(trained.device))


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


def _compare(
    files: list[Path], names: list[str], known: tuple[list[Entry], Tensor] | None
) -> tuple[list[Entry], list[int | None]]:
    """Of each file its entry now, and the row of its feature in the index: None where there is none that fits."""
    before = {} if known is None else {entry.name: (row, entry) for row, entry in enumerate(known[0])}
    entries: list[Entry] = []
    rows: list[int | None] = []
    for file, name in progress(zip(files, names, strict=True), "check the index", len(files)):
        row, entry = before.get(name, (None, None))
        try:
            stat = file.stat()
            if entry is None or not entry.looks_like(stat):
                now = Entry(name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, _sha256(file))
                row = row if entry is not None and entry.sha256 == now.sha256 else None
                entry = now
        except OSError as error:  # a link to nothing: the check of the images names it
            entry, row = Entry(name, 0, 0, 0, f"{error.strerror}"), None
        entries.append(entry)
        rows.append(row)
    return entries, rows


def _say(
    index: Path, known: tuple[list[Entry], Tensor] | None, names: list[str], entries: list[Entry], new: list[int]
) -> None:
    """What has changed since the index was written."""
    if known is None:
        return
    before = {entry.name for entry in known[0]}
    counts = {
        "new": sum(names[number] not in before for number in new),
        "changed": sum(names[number] in before for number in new),
        "removed": len(before - set(names)),
    }
    told = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    log.info("%s: %s images; since it was written: %s", index, f"{len(before):,}", told or "no file has changed")


def _read(index: Path, encoder: str, num_features: int) -> tuple[list[Entry], Tensor] | None:
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
