"""Progress on stderr, where someone is watching."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

#: Seconds between two looks at the clock.
TICK = 1.0


def progress(items: Iterable[T], title: str, total: int) -> Iterator[T]:
    """``items`` with a bar that vanishes at the end; no bar where stderr is no terminal or the log is quiet."""
    from tqdm import tqdm

    return iter(tqdm(items, desc=title, total=total, leave=False, dynamic_ncols=True, disable=_disabled()))


@contextmanager
def counter(title: str, total: int, done: int = 0) -> Iterator[Callable[[int], object]]:
    """What to call with how many of ``total`` are done in addition; a bar under the conditions of :func:`progress`."""
    from tqdm import tqdm

    with tqdm(desc=title, total=total, initial=done, leave=False, dynamic_ncols=True, disable=_disabled()) as bar:
        yield bar.update


@contextmanager
def clock(title: str) -> Iterator[None]:
    """The seconds that one call has taken so far, under the conditions of :func:`progress`; gone at the end."""
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
    """Of tqdm's ``disable``: None leaves the decision to stderr."""
    return None if logging.getLogger("ccfast").isEnabledFor(logging.INFO) else True
