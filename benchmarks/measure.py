"""Time and memory of a case's providers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from benchmarks.case import Bench, Case, Difference
from benchmarks.clock import seconds_of, with_peak_memory
from benchmarks.limits import Limits

ROUND_SECONDS = 5e-3  # a round calls a fast function this long, so that the clock does not count
SLOW_SECONDS = 2.5  # above this one call is enough, and it is the first
MOST_ROUNDS = 50
FEWEST_ROUNDS = 3


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
    difference: Difference | None  # None: nothing at this size to compare with

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


@dataclass(frozen=True)
class Measured:
    """A case by all its providers.

    Attributes:
        timings: by provider.
        left_out: provider -> why it was not run at this size.
        facts: of the inputs.
    """

    timings: Mapping[str, Timing]
    left_out: Mapping[str, str]
    facts: Mapping[str, float] = field(default_factory=dict)


def first_call(bench: Bench, provider: str, left_out: Mapping[str, str] | None = None) -> First:
    """Call once: check the answer, and see how much memory it takes."""
    if provider in bench.case.warm_up:
        bench.run(provider)
    seconds, peak_memory, answer = with_peak_memory(bench.first_call(provider), bench.device)
    return First(seconds, peak_memory, bench.check(provider, answer, left_out))


def measure(case: Case, budget: float, limits: Limits) -> Measured:
    """Time every provider for about ``budget`` seconds, in turns, so that what else the machine does hits all alike."""
    reason = limits.whole_case(case)
    left_out = {name: reason or limits.cell(case, name) for name in case.providers}
    left_out = {name: why for name, why in left_out.items() if why} | dict(case.missing)
    providers = [name for name in case.truth_first() if name not in left_out]
    if not providers:
        return Measured({}, left_out)
    bench = Bench(case, limits.device)
    first = {provider: first_call(bench, provider, left_out) for provider in providers}
    plans = {provider: bench_plan(bench, provider, found, budget) for provider, found in first.items()}
    seconds = {provider: [found.seconds] if found.slow else [] for provider, found in first.items()}
    for turn in range(MOST_ROUNDS):
        for provider, planned in plans.items():
            if turn < planned.rounds and not first[provider].slow:
                seconds[provider].append(_round(bench, provider, planned.iterations))
    timings = {name: Timing(seconds[name], plans[name], first[name]) for name in case.providers if name in first}
    for name, timing in timings.items():
        limits.add(case, name, timing.quantile(0.5), timing.first.peak_memory)
    return Measured(timings, left_out, bench.facts)


def bench_plan(bench: Bench, provider: str, first: First, budget: float) -> Plan:
    """The plan for a provider, from a warm call unless its first one took too long for another."""
    return plan(first.seconds if first.slow else _round(bench, provider, 1), budget)


def _round(bench: Bench, provider: str, iterations: int) -> float:
    return seconds_of(lambda: bench.run(provider), bench.device, iterations)
