"""The images in a folder, and findings about everything else in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ccfast._errors import InputError
from ccfast.data import formats
from ccfast.data.findings import Findings, Reason, printable

#: Names, lower case, of files and folders that systems and programs add to images.
SYSTEM_NAMES = {
    "@eadir", "#recycle", "#snapshot", "@tmp", "$recycle.bin", "recycler", "system volume information", "lost+found",
    "__macosx", "__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini", "picasa.ini", "icon\r",
}  # fmt: skip

#: Hidden names of systems and programs.
HIDDEN_SYSTEM_NAMES = {".thumbnails", ".thumbs", ".ipynb_checkpoints", ".appledouble", ".trash", ".trashes"}


#: Device and inode of a folder.
Identity = tuple[int, int]


def list_images(folder: Path, findings: Findings, *, below: bool = False) -> list[Path]:
    """The images in ``folder`` (with ``below``, also in its sub-folders), sorted by name.

    Links to files and folders are followed, except a link to a folder that contains it. Everything else goes to
    ``findings``.

    Raises:
        InputError: a folder that cannot be listed.
    """
    above = frozenset(map(_identity, folder.resolve().parents))
    return sorted(_walk(folder, folder, findings, below, above))


def is_ignored(name: str) -> bool:
    """Whether a file or folder with this name is hidden or belongs to the system."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of ``folder``, sorted by name; an error if it cannot be listed."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{printable(folder)}: the folder cannot be listed: {error.strerror}") from error


def count_images(path: Path) -> int:
    """The number of images at or below ``path``, including hidden ones; links to folders are not followed."""
    if not path.is_dir():
        return int(_is_image(path.name))
    return sum(_is_image(name) for _, _, names in os.walk(path) for name in names)


def _walk(top: Path, folder: Path, findings: Findings, below: bool, above: frozenset[Identity]) -> Iterator[Path]:
    """``above``: all folders that contain ``folder``."""
    own = _identity(folder)
    before = findings.visited.setdefault(own, str(folder))
    if before != str(folder):
        findings.warnings.append(
            f"one folder is read twice, because of links: as {printable(before)} and as {printable(folder)}"
        )
    for entry in entries(folder):
        path, shown = Path(entry.path), Path(entry.path).relative_to(top.parent)
        if is_ignored(entry.name):
            system = entry.name.lower() in SYSTEM_NAMES | HIDDEN_SYSTEM_NAMES
            reason = Reason.SYSTEM if system else Reason.HIDDEN
            findings.leave_out(reason, shown, max(1, count_images(path)))
        elif entry.is_dir():
            if entry.is_symlink() and _identity(path) in above | {own}:
                findings.leave_out(Reason.LOOP, shown)
            elif below:
                yield from _walk(top, path, findings, below, above | {own})
            elif images := count_images(path):
                findings.leave_out(Reason.DEEPER, shown, images)
        elif _to_read(entry, shown, findings):
            yield path


def _to_read(entry: os.DirEntry[str], shown: Path, findings: Findings) -> bool:
    """Whether a file is an image to read; otherwise it goes to ``findings``."""
    extension = Path(entry.name).suffix.lower()
    broken = entry.is_symlink() and not os.path.exists(entry.path)
    if extension in formats.readable() and (broken or entry.is_file()):
        return True  # a broken link to an image counts as an unreadable image
    if broken:
        findings.leave_out(Reason.BROKEN, shown)
    elif not entry.is_file():
        findings.leave_out(Reason.SPECIAL, shown)
    elif (advice := formats.advice(extension)) is not None:
        findings.leave_out(Reason.FORMAT, shown, advice=advice)
    else:
        findings.leave_out(Reason.NOT_IMAGES, shown)
    return False


def _identity(folder: Path) -> Identity:
    stat = folder.stat()
    return stat.st_dev, stat.st_ino


def _is_image(name: str) -> bool:
    extension = Path(name).suffix.lower()
    return extension in formats.readable() or formats.advice(extension) is not None
