"""Time and memory of a case's providers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from benchmarks.attempts import EAGER, GRAPH, Attempts, Cell
from benchmarks.case import Bench, Case, Difference
from benchmarks.clock import seconds_of, with_peak_memory
from benchmarks.limits import Limits

ROUND_SECONDS = 5e-3  # on a CPU a round calls a fast function for this time, so that the clock's own time is negligible
SLOW_SECONDS = 2.5  # above this time the first call is enough
MOST_ROUNDS = 50
FEWEST_ROUNDS = 3


@dataclass(frozen=True)
class Plan:
    """How often to call: the median is taken over rounds, each the mean of its iterations."""

    rounds: int
    iterations: int


def plan(seconds: float, budget: float, device: torch.device) -> Plan:
    """For a function that takes about ``seconds``, to be timed for ``budget`` seconds."""
    if seconds > SLOW_SECONDS:
        return Plan(1, 1)
    iterations = 1 if device.type == "cuda" else max(1, math.ceil(ROUND_SECONDS / seconds))
    rounds = int(budget / (seconds * iterations))
    return Plan(min(max(rounds, FEWEST_ROUNDS), MOST_ROUNDS), iterations)


@dataclass(frozen=True)
class First:
    """The measurements of a provider's first call."""

    seconds: float
    peak_memory: int | None
    difference: Difference | None  # None: nothing at this size to compare with

    @property
    def slow(self) -> bool:
        """Too slow to be called again."""
        return self.seconds > SLOW_SECONDS


@dataclass(frozen=True)
class Timing:
    """Seconds of a provider, one number per round, and the measurements of its first call."""

    seconds: list[float]
    plan: Plan
    first: First

    def quantile(self, share: float) -> float:
        return float(np.quantile(self.seconds, share))


@dataclass(frozen=True)
class Measured:
    """A case by all its providers.

    Attributes:
        timings: of the cells that were measured.
        left_out: cell -> why it was not run at this size, or how it failed.
        facts: of the inputs.
        failed: the cells that gave a wrong answer, or an error other than too little memory.
        lost: the failure after which nothing runs on the GPU, if any.
    """

    timings: Mapping[Cell, Timing]
    left_out: Mapping[Cell, str]
    facts: Mapping[str, float] = field(default_factory=dict)
    failed: frozenset[Cell] = frozenset()
    lost: str = ""


@dataclass(frozen=True)
class Ready:
    """A cell that can be timed: its answer is right."""

    call: Callable[[], Any]
    first: First
    plan: Plan


def first_call(bench: Bench, provider: str, left_out: Mapping[str, str] | None = None) -> First:
    """Call once: check the answer, and measure the memory."""
    if provider in bench.case.warm_up:
        bench.run(provider)
    seconds, peak_memory, answer = with_peak_memory(bench.first_call(provider), bench.device)
    if provider in bench.case.own_memory:
        peak_memory = None
    return First(seconds, peak_memory, bench.check(provider, answer, left_out))


def measure(case: Case, budget: float, limits: Limits, strict: bool = True) -> Measured:
    """Time every provider for about ``budget`` seconds, in turns, so that other load affects all providers equally.

    A provider that fails is left out with the reason; a wrong answer is an error where this is ``strict``.
    """
    attempt = Attempts(strict, _foreseen(case, limits))
    cells = [Cell(name) for name in case.truth_first() if Cell(name) not in attempt.left_out]
    bench = attempt(cells, lambda: Bench(case, limits.device)) if cells else None
    if bench is None:
        return Measured({}, attempt.left_out, {}, frozenset(attempt.failed), attempt.lost)
    ready = {}
    for cell in cells:
        ready[cell] = attempt([cell], lambda cell=cell: _eager(bench, cell.provider, attempt.left_out, budget))
    if case.graph and limits.device.type == "cuda":
        for cell in [Cell(cell.provider, GRAPH) for cell in cells if ready[cell]]:
            if why := case.uncapturable.get(cell.provider):
                attempt.left_out[cell] = f"cannot be captured: {why}"
            else:
                ready[cell] = attempt([cell], lambda cell=cell: _graph(bench, cell.provider, attempt.left_out, budget))
    timings = _in_turns(bench, {cell: found for cell, found in ready.items() if found}, attempt)
    for cell, timing in timings.items():
        if cell.mode == EAGER:
            limits.add(case, cell.provider, timing.quantile(0.5), timing.first.peak_memory)
    facts = attempt([Cell("facts of the inputs")], lambda: bench.facts) or {}
    return Measured(timings, attempt.left_out, facts, frozenset(attempt.failed), attempt.lost)


def _foreseen(case: Case, limits: Limits) -> dict[Cell, str]:
    whole = limits.whole_case(case)
    left_out = {Cell(name): whole or limits.cell(case, name) for name in case.providers}
    missing = {Cell(name): why for name, why in case.missing.items()}
    return {cell: why for cell, why in left_out.items() if why} | missing


def _eager(bench: Bench, provider: str, left_out: Mapping[Cell, str], budget: float) -> Ready:
    first = first_call(bench, provider, _providers(left_out))
    return Ready(lambda: bench.run(provider), first, bench_plan(bench, provider, first, budget))


def _graph(bench: Bench, provider: str, left_out: Mapping[Cell, str], budget: float) -> Ready:
    captured = bench.captured(provider)
    difference = bench.check(provider, captured.answer, _providers(left_out))
    seconds = seconds_of(captured.replay, bench.device, queued=True)
    return Ready(lambda: captured.replay(), First(seconds, None, difference), plan(seconds, budget, bench.device))


def _providers(left_out: Mapping[Cell, str]) -> dict[str, str]:
    return {cell.provider: why for cell, why in left_out.items() if cell.mode == EAGER}


def _in_turns(bench: Bench, ready: Mapping[Cell, Ready], attempt: Attempts) -> dict[Cell, Timing]:
    """The timings in the case's order, calls before graphs."""
    seconds = {cell: [found.first.seconds] if found.first.slow else [] for cell, found in ready.items()}
    for turn in range(MOST_ROUNDS):
        for cell, found in ready.items():
            if cell in attempt.left_out or found.first.slow or turn >= found.plan.rounds:
                continue
            taken = attempt([cell], lambda cell=cell, found=found: _round(bench, found, cell.mode == GRAPH))
            if taken is not None:
                seconds[cell].append(taken)
    order = [Cell(name, mode) for mode in (EAGER, GRAPH) for name in bench.case.providers]
    return {
        cell: Timing(seconds[cell], ready[cell].plan, ready[cell].first)
        for cell in order
        if cell in ready and cell not in attempt.left_out
    }


def bench_plan(bench: Bench, provider: str, first: First, budget: float) -> Plan:
    """The plan for a provider, from a warm call unless its first one took too long for another."""
    seconds = first.seconds if first.slow else seconds_of(lambda: bench.run(provider), bench.device)
    return plan(seconds, budget, bench.device)


def _round(bench: Bench, ready: Ready, queued: bool) -> float:
    return seconds_of(ready.call, bench.device, ready.plan.iterations, queued)
