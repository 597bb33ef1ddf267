"""Progress bars on stderr, where someone is watching."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def progress(items: Iterable[T], title: str, total: int) -> Iterator[T]:
    """``items`` with a bar that vanishes at the end; no bar where stderr is no terminal or the log is quiet."""
    from tqdm import tqdm

    quiet = not logging.getLogger("ccfast").isEnabledFor(logging.INFO)
    return iter(tqdm(items, desc=title, total=total, leave=False, dynamic_ncols=True, disable=True if quiet else None))
