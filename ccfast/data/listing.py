"""The images in a folder, and an account of everything else in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ccfast._errors import InputError
from ccfast.data import formats
from ccfast.data.findings import Findings, Reason, printable

#: Names, lower case, of what systems and programs put beside images.
SYSTEM_NAMES = {
    "@eadir", "#recycle", "#snapshot", "@tmp", "$recycle.bin", "recycler", "system volume information", "lost+found",
    "__macosx", "__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini", "picasa.ini", "icon\r",
}  # fmt: skip

#: Hidden names that are a system's or a program's too.
HIDDEN_SYSTEM_NAMES = {".thumbnails", ".thumbs", ".ipynb_checkpoints", ".appledouble", ".trash", ".trashes"}


#: Device and inode of a folder.
Identity = tuple[int, int]


def list_images(folder: Path, findings: Findings, *, below: bool = False) -> list[Path]:
    """The images in ``folder`` (``below``: and in its sub-folders) in the order of their names.

    Links are followed, to files and to folders, but for links to a folder that they lie in. What else there is goes
    to ``findings``.

    Raises:
        InputError: a folder that cannot be listed.
    """
    above = frozenset(map(_identity, folder.resolve().parents))
    return sorted(_walk(folder, folder, findings, below, above))


def is_ignored(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or a system's own."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What ``folder`` holds, in the order of the names; refused where it cannot be listed."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{printable(folder)}: the folder cannot be listed: {error.strerror}") from error


def count_images(path: Path) -> int:
    """How many images lie at or below ``path``, hidden ones included; links to folders are not followed."""
    if not path.is_dir():
        return int(_is_image(path.name))
    return sum(_is_image(name) for _, _, names in os.walk(path) for name in names)


def _walk(top: Path, folder: Path, findings: Findings, below: bool, above: frozenset[Identity]) -> Iterator[Path]:
    """``above``: every folder on the way to ``folder``."""
    own = _identity(folder)
    before = findings.visited.setdefault(own, str(folder))
    if before != str(folder):
        findings.warnings.append(
            f"one folder is read under two names, by links: {printable(before)} and {printable(folder)}"
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
    """Whether a file is an image that is read; else it goes to ``findings``."""
    extension = Path(entry.name).suffix.lower()
    broken = entry.is_symlink() and not os.path.exists(entry.path)
    if extension in formats.readable() and (broken or entry.is_file()):
        return True  # an image that leads to nothing cannot be read, as others that are broken
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
