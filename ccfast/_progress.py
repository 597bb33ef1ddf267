"""Progress on stderr, if it is a terminal."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

#: Seconds between two updates.
TICK = 1.0


def progress(items: Iterable[T], title: str, total: int) -> Iterator[T]:
    """``items`` with a bar that is removed at the end; no bar if stderr is not a terminal or the log is quiet."""
    from tqdm import tqdm

    return iter(tqdm(items, desc=title, total=total, leave=False, dynamic_ncols=True, disable=_disabled()))


@contextmanager
def counter(title: str, total: int, done: int = 0) -> Iterator[Callable[[int], object]]:
    """A function to call with the number of further items done of ``total``; shows a bar as in :func:`progress`."""
    from tqdm import tqdm

    with tqdm(desc=title, total=total, initial=done, leave=False, dynamic_ncols=True, disable=_disabled()) as bar:
        yield bar.update


@contextmanager
def clock(title: str) -> Iterator[None]:
    """Show the seconds of one call so far, under the conditions of :func:`progress`; removed at the end."""
    from tqdm import tqdm

    with tqdm(desc=title, bar_format="{desc}: {elapsed}", leave=False, disable=_disabled()) as line:
        done = threading.Event()
        ticking = threading.Thread(target=_tick, args=(line.refresh, done), daemon=True)
        if not line.disable:
            ticking.start()
        try:
            yield
        finally:
            done.set()
            if not line.disable:
                ticking.join()


def _tick(refresh: Callable[[], object], done: threading.Event) -> None:
    while not done.wait(TICK):
        refresh()


def _disabled() -> bool | None:
    """The value of tqdm's ``disable``: None lets stderr decide."""
    return None if logging.getLogger("ccfast").isEnabledFor(logging.INFO) else True
