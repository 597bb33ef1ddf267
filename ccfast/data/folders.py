"""Finding a data set's folder at or below ``--data-dir``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ccfast._errors import InputError

#: How deep below --data-dir a data set is looked for.
SEARCH_DEPTH = 3

#: How many entries of a wrong folder a message names.
NAMED = 10


def find_root(data_dir: str | Path, is_root: Callable[[Path], bool], expected: str) -> Path:
    """The one folder at or below ``data_dir`` that ``is_root``; errors end with ``expected``."""
    top = existing_folder(data_dir)
    roots = list(_roots(top, is_root, SEARCH_DEPTH))
    if not roots:
        raise InputError(f"--data-dir: {top} holds {contents(top)}; {expected}")
    if len(roots) > 1:
        raise InputError(f"--data-dir: several data sets below {top}: {', '.join(map(str, roots))}; name one")
    return roots[0]


def existing_folder(data_dir: str | Path) -> Path:
    """``data_dir`` as a path; refused where it is no folder."""
    path = Path(data_dir)
    if not path.is_dir():
        raise InputError(f"--data-dir: no such folder: {path}")
    return path


def contents(folder: Path) -> str:
    """What a folder holds, in a few words."""
    found = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in folder.iterdir())
    listed = ", ".join(found[:NAMED]) + (f" and {len(found) - NAMED} more" if len(found) > NAMED else "")
    return listed or "nothing"


def _roots(top: Path, is_root: Callable[[Path], bool], depth: int) -> Iterator[Path]:
    if is_root(top):
        yield top
    elif depth:
        for entry in sorted(os.scandir(top), key=lambda entry: entry.name):
            if entry.is_dir() and not entry.name.startswith("."):
                yield from _roots(Path(entry.path), is_root, depth - 1)
