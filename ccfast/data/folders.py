"""Finds the folder of a data set, which is ``--data-dir`` or below it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from ccfast._errors import InputError
from ccfast.data.findings import Findings, Reason
from ccfast.data.listing import count_images, entries, is_ignored

#: How deep below --data-dir a data set is searched.
SEARCH_DEPTH = 3

#: Number of entries of a wrong folder that a message names.
NAMED = 10


#: Whether a folder holds a data set, from the lower-case names of its sub-folders.
IsRoot = Callable[[Collection[str]], bool]


def find_root(data_dir: str | Path, is_root: IsRoot, expected: str) -> Path:
    """The one folder at or below ``data_dir`` that ``is_root``; errors end with ``expected``."""
    top = existing_folder(data_dir)
    roots = roots_below(top, is_root)
    if not roots:
        raise InputError(f"--data-dir: {top} holds {contents(top)}; {expected}")
    return only_root(top, roots)


def roots_below(top: Path, is_root: IsRoot) -> list[Path]:
    """The folders at ``top`` or a few levels below it that ``is_root``; each once, even if several links lead to it."""
    return list({root.resolve(): root for root in reversed(list(_roots(top, is_root, SEARCH_DEPTH)))}.values())[::-1]


def only_root(top: Path, roots: list[Path]) -> Path:
    """The only one of ``roots``; several are an error."""
    if len(roots) > 1:
        raise InputError(f"--data-dir: several data sets below {top}: {', '.join(map(str, roots))}; name one")
    return roots[0]


def entry_named(folder: Path, name: str) -> Path | None:
    """``folder / name``, a file or folder; if it does not exist, the only one whose name differs only in case."""
    path = folder
    for part in Path(name).parts:
        exact = path / part
        if not exact.exists():
            alike = [entry for entry in entries(path) if entry.name.lower() == part.lower()] if path.is_dir() else []
            if len(alike) != 1:
                return None
            exact = Path(alike[0].path)
        path = exact
    return path


def folder_named(folder: Path, name: str) -> Path | None:
    """:func:`entry_named`, if it is a folder."""
    path = entry_named(folder, name)
    return path if path is not None and path.is_dir() else None


def note_beside(root: Path, read: Collection[Path], findings: Findings, published: Collection[str] = ()) -> None:
    """Count the images in ``root`` outside the folders ``read``; ``published``: names of expected further folders."""
    known = {path.resolve() for path in read}
    for entry in entries(root):
        path = Path(entry.path)
        if path.resolve() in known:
            continue
        if images := count_images(path):
            shown = entry.name + ("/" if entry.is_dir() else "")
            reason = Reason.PUBLISHED if entry.name.lower() in published else Reason.BESIDE
            findings.leave_out(Reason.SYSTEM if is_ignored(entry.name) else reason, shown, images)


def existing_folder(data_dir: str | Path) -> Path:
    """``data_dir`` as a path; an error if it is not a folder."""
    path = Path(data_dir)
    if not path.is_dir():
        raise InputError(f"--data-dir: no such folder: {path}")
    return path


def contents(folder: Path) -> str:
    """The content of a folder, in a few words."""
    found = [entry.name + ("/" if entry.is_dir() else "") for entry in entries(folder)]
    listed = ", ".join(found[:NAMED]) + (f" and {len(found) - NAMED} more" if len(found) > NAMED else "")
    return listed or "nothing"


def _roots(top: Path, is_root: IsRoot, depth: int) -> Iterator[Path]:
    folders = [entry for entry in entries(top) if entry.is_dir() and not is_ignored(entry.name)]
    if is_root({entry.name.lower() for entry in folders}):
        yield top
    elif depth:
        for entry in folders:
            yield from _roots(Path(entry.path), is_root, depth - 1)
