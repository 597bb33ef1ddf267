"""Which cells are not run, and why: the output has a reason for each of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from benchmarks.case import Case
from benchmarks.clock import free_memory
from benchmarks.peaks import Peaks

MOST_SECONDS = {"cpu": 60.0, "cuda": 20.0}  # for one call
MOST_MEMORY = 0.6  # of what is free


@dataclass(frozen=True)
class Seen:
    """One size of a case by a provider: measured, or estimated if it was too large."""

    sizes: str
    growth: float
    seconds: float
    memory: float


@dataclass
class Limits:
    """Estimates time and memory of a cell from the same provider's smaller one in the same run."""

    peaks: Peaks
    device: torch.device
    seen: dict[tuple[str, str], Seen] = field(default_factory=dict)

    def whole_case(self, case: Case) -> str | None:
        """Why no provider can run it, from its floor and its inputs, or None."""
        works = [make(**case.sizes) for make in (case.work, case.inputs_work) if make]
        floor, most = sum(map(self.peaks.floor, works)), MOST_SECONDS[self.device.type]
        if floor > most / 2:
            return f"its floor is {floor:.3g} s, and a call may take {most:g} s"
        size = case.inputs_bytes(**case.sizes) if case.inputs_bytes else 0
        if size > MOST_MEMORY / 2 * free_memory(self.device):
            return f"its inputs are {size / 1e9:.3g} GB"
        return None

    def cell(self, case: Case, provider: str) -> str | None:
        """Why this provider is left out, or None."""
        before = self.seen.get((case.name, provider))
        if before is None or not case.growth:
            return None
        growth = case.growth(**case.sizes)
        seconds = before.seconds * growth / before.growth
        memory = before.memory * growth / before.growth
        # Estimated from estimates, if several consecutive sizes are too large.
        self.seen[case.name, provider] = Seen(before.sizes, growth, seconds, memory)
        if seconds > MOST_SECONDS[self.device.type]:
            return f"about {seconds:.2g} s per call, estimated from {before.sizes}"
        if memory > MOST_MEMORY * free_memory(self.device):
            return f"about {memory / 1e9:.2g} GB, estimated from {before.sizes}"
        return None

    def add(self, case: Case, provider: str, seconds: float, memory: int | None) -> None:
        """Remember a cell that has been measured."""
        growth = case.growth(**case.sizes) if case.growth else math.nan
        self.seen[case.name, provider] = Seen(str(case), growth, seconds, memory or 0)
