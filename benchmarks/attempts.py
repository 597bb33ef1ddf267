"""Runs the cells of a case, and records failures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from benchmarks.case import WrongAnswer

EAGER, GRAPH = "eager", "graph"


class Cell(NamedTuple):
    """A provider, called (``eager``) or replayed as a CUDA graph."""

    provider: str
    mode: str = EAGER


@dataclass
class Attempts:
    """Runs code that may fail, so that the failure of one cell does not affect the others."""

    strict: bool
    left_out: dict[Cell, str]
    failed: set[Cell] = field(default_factory=set)
    lost: str = ""  # the failure after which all later calls fail

    def __call__(self, cells: list[Cell], what: Callable[[], Any]) -> Any:
        """``what()``; after a failure None, and the reason is recorded for the ``cells``."""
        if self.lost:
            self.left_out.update(dict.fromkeys(cells, f"the GPU did not survive a failure before: {self.lost}"))
            return None
        try:
            return what()
        except Exception as error:
            if self.strict and isinstance(error, WrongAnswer):
                raise
            self.left_out.update(dict.fromkeys(cells, reason(error)))
            if not isinstance(error, torch.OutOfMemoryError):
                self.failed.update(cells)
        try:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
        except Exception as error:
            self.lost = reason(error)
        return None


def reason(error: BaseException) -> str:
    """Why a cell failed, in one line."""
    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory"
    lines = str(error).splitlines() or [""]
    return f"wrong answer: {lines[0]}" if isinstance(error, WrongAnswer) else f"{type(error).__name__}: {lines[0]}"
