"""The features of a gallery's images, kept in a folder beside it and updated when files change."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ccfast._errors import InputError
from ccfast._progress import progress
from ccfast._words import counted
from ccfast.data import Part, formats
from ccfast.data.findings import Findings, Reason
from ccfast.data.image_files import ImageFiles, pixels_at_most, say_bad, unreadable
from ccfast.data.image_list import list_files, say_what_was_read
from ccfast.inference.index_folder import Entry, Known, Maker, given_index, read_index, write_index
from ccfast.training.trained import Trained

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _File:
    """A file of the gallery, and the row of its feature in the index; None if it has none."""

    path: Path
    entry: Entry
    row: int | None

    @property
    def is_new(self) -> bool:
        """Whether the index knows neither a feature of the file nor why it cannot be read."""
        return self.row is None and not self.entry.problem


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
    extracted, and unreadable files are not tried again. An index of another encoder, or a damaged one, is made again.
    If it cannot be written, a warning says so.

    Args:
        index: its folder (:func:`given_index`); None: :func:`index_beside` the gallery.

    Raises:
        InputError: no image that can be read, an unreadable one unless the run's ``bad_images`` is "skip", or a folder
            ``index`` that holds other files than those of an index.
    """
    files, findings = list_files("--gallery", path)
    top = Path(path) if Path(path).is_dir() else Path(path).parent
    index = index_beside(Path(path)) if index is None else given_index(index)
    maker = Maker(fingerprint(trained), trained.encoder.num_features, _reader(trained))
    known = read_index(index, maker)
    found = _compare(files, [file.relative_to(top).as_posix() for file in files], known)
    if known is not None:
        _say_what_changed(index, known, found)
    found, bad = _checked(found, trained, findings)
    if not found:
        raise InputError(f"--gallery: {path}: no image that can be read")
    say_what_was_read(path, len(found), findings)
    now = Known([file.entry for file in found], _features(found, known, trained), [file.entry for file in bad])
    if known is None or (now.entries, now.unreadable) != (known.entries, known.unreadable):
        write_index(index, maker, now)
    return Gallery([str(file.path) for file in found], now.features.to(trained.device))


def _checked(found: list[_File], trained: Trained, findings: Findings) -> tuple[list[_File], list[_File]]:
    """The images, and the unreadable files, which are an error unless the run's ``bad_images`` is "skip"."""
    with pixels_at_most(trained.config.max_image_pixels):
        new = [file.path for file in found if file.is_new]
        problems = dict(unreadable(new, workers=trained.config.workers))
    found = [_with_problem(file, problems.get(file.path)) for file in found]
    bad = [file for file in found if file.entry.problem]
    if bad:
        told = [f"{file.path}: {file.entry.problem}" for file in bad]
        say_bad(told, skip=trained.config.bad_images == "skip")
        findings.leave_out(Reason.BAD, bad[0].path, len(bad))
    return [file for file in found if not file.entry.problem], bad


def _with_problem(file: _File, problem: str | None) -> _File:
    if problem is None:
        return file
    return replace(file, entry=replace(file.entry, problem=problem.removeprefix(f"{file.path}: ")))


def _reader(trained: Trained) -> str:
    """A digest of what decides, besides the files, which of them can be read."""
    from PIL import __version__

    told = (__version__, sorted(formats.readable()), trained.config.max_image_pixels)
    return hashlib.sha256(repr(told).encode()).hexdigest()


def _features(found: list[_File], known: Known | None, trained: Trained) -> Tensor:
    """The features [N, D] of the files, on the CPU: from the index, or by the encoder."""
    features = torch.empty(len(found), trained.encoder.num_features)
    new = [place for place, file in enumerate(found) if file.row is None]
    old = [(place, file.row) for place, file in enumerate(found) if file.row is not None]
    if old:
        assert known is not None
        features[[place for place, _ in old]] = known.features[[row for _, row in old]]
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
    """The current state of each file, with what the index knows of it if the file has not changed."""
    before = _by_name(known.entries) | _by_name(known.unreadable) if known is not None else {}
    found = []
    for path, name in progress(zip(files, names, strict=True), "check the index", len(files)):
        row, entry = before.get(name, (None, None))
        now = _state(path, name, entry)
        if entry is not None and now.sha256 == entry.sha256:
            found.append(_File(path, replace(now, problem=entry.problem), row))
        else:
            found.append(_File(path, now, None))
    return found


def _by_name(entries: Sequence[Entry]) -> dict[str, tuple[int | None, Entry]]:
    """The row and the entry of each file; unreadable files have no row."""
    return {entry.name: (None if entry.problem else row, entry) for row, entry in enumerate(entries)}


def _state(path: Path, name: str, before: Entry | None) -> Entry:
    """The current state of a file; its content is only read if it may have changed since ``before``."""
    try:
        stat = path.stat()
        if before is not None and before.looks_like(stat):
            return before
        return Entry(name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, _sha256(path))
    except OSError as error:  # a broken link; the check of the images reports it
        return Entry(name, 0, 0, 0, f"{error.strerror}")


def _say_what_changed(index: Path, known: Known, found: list[_File]) -> None:
    """Log what the index holds, and how many files are new, changed and removed since it was written."""
    names = {entry.name for entry in (*known.entries, *known.unreadable)}
    new = [file.entry.name for file in found if file.is_new]
    counts = {
        "new": sum(name not in names for name in new),
        "changed": sum(name in names for name in new),
        "removed": len(names - {file.entry.name for file in found}),
    }
    told = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    bad = f", {len(known.unreadable):,} unreadable" if known.unreadable else ""
    log.info("%s: %s%s; since it was written: %s", index, counted(len(known.entries), "image"), bad,
             told or "no file has changed")  # fmt: skip


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with open(file, "rb") as opened:
        while block := opened.read(2**20):
            digest.update(block)
    return digest.hexdigest()
