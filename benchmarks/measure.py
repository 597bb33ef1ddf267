"""Time and memory of a case's providers."""

from __future__ import annotations

import ctypes
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.case import Bench, Case, Difference

ROUND_SECONDS = 5e-3  # a round calls a fast function this long, so that the clock does not count
SLOW_SECONDS = 10.0  # above this one call is enough, and it is the first
MOST_ROUNDS = 50
FEWEST_ROUNDS = 5


@dataclass(frozen=True)
class Plan:
    """How often to call: the median is taken over rounds, each the mean of its iterations."""

    rounds: int
    iterations: int


def plan(seconds: float, budget: float) -> Plan:
    """For a function that takes about ``seconds``, to be timed for ``budget`` seconds."""
    if seconds > SLOW_SECONDS:
        return Plan(1, 1)
    iterations = max(1, math.ceil(ROUND_SECONDS / seconds))
    rounds = int(budget / (seconds * iterations))
    return Plan(min(max(rounds, FEWEST_ROUNDS), MOST_ROUNDS), iterations)


@dataclass(frozen=True)
class First:
    """What the first call of a provider tells."""

    seconds: float
    peak_memory: int | None
    difference: Difference

    @property
    def slow(self) -> bool:
        """Too slow to be called again."""
        return self.seconds > SLOW_SECONDS


@dataclass(frozen=True)
class Timing:
    """Seconds of a provider, a number a round, and what its first call told."""

    seconds: list[float]
    plan: Plan
    first: First

    def quantile(self, share: float) -> float:
        return float(np.quantile(self.seconds, share))


def first_call(bench: Bench, provider: str) -> First:
    """Call once: check the answer, and see how much memory it takes."""
    call = bench.first_call(provider)
    seconds, peak_memory, answer = with_peak_memory(call)
    return First(seconds, peak_memory, bench.check(provider, answer))


def measure(case: Case, budget: float) -> tuple[dict[str, Timing], dict[str, float]]:
    """Time every provider for about ``budget`` seconds, in turns, so that what else the machine does hits all alike.

    Returns:
        The timings by provider, and the facts of the inputs.
    """
    bench = Bench(case)
    first = {provider: first_call(bench, provider) for provider in case.truth_first()}
    plans = {provider: bench_plan(bench, provider, found, budget) for provider, found in first.items()}
    seconds = {provider: [found.seconds] if found.slow else [] for provider, found in first.items()}
    for turn in range(MOST_ROUNDS):
        for provider, planned in plans.items():
            if turn < planned.rounds and not first[provider].slow:
                seconds[provider].append(timed(bench.run, provider, iterations=planned.iterations))
    timings = {provider: Timing(seconds[provider], plans[provider], first[provider]) for provider in case.providers}
    return timings, bench.facts


def bench_plan(bench: Bench, provider: str, first: First, budget: float) -> Plan:
    """The plan for a provider, from a warm call unless its first one took too long for another."""
    return plan(first.seconds if first.slow else timed(bench.run, provider), budget)


def timed(call: Callable[..., Any], *arguments: Any, iterations: int = 1) -> float:
    """Mean seconds of a call."""
    start = time.perf_counter()
    for _ in range(iterations):
        call(*arguments)
    return (time.perf_counter() - start) / iterations


def with_peak_memory(call: Callable[[], Any]) -> tuple[float, int | None, Any]:
    """Seconds, additional peak memory in bytes (its result included; None where Linux does not tell), and result."""
    before = _restart_peak()
    start = time.perf_counter()
    result = call()
    seconds = time.perf_counter() - start
    return seconds, None if before is None else max(0, _status("VmHWM") - before), result


@cache
def _load_libraries() -> None:
    """Have the matrix product's code and buffers in memory, which stay there and belong to no provider."""
    matrix = torch.ones(2048, 2048)
    matrix @ matrix


def _restart_peak() -> int | None:
    """Give unused memory back to the system, and let the high-water mark of resident memory start from here."""
    _load_libraries()
    try:
        ctypes.CDLL(None).malloc_trim(0)  # or the call would live on memory that an earlier one has left
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")
    except (AttributeError, OSError):
        return None


def _status(name: str) -> int:
    text = Path("/proc/self/status").read_text()
    return int(re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE).group(1)) * 1024
