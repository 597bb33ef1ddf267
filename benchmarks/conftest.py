"""``pytest benchmarks --benchmark-only [--sizes full]``: every case by every provider, checked before it is timed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks.case import CPU, PRESETS, Bench, Case
from benchmarks.limits import Limits
from benchmarks.measure import bench_plan, first_call
from benchmarks.peaks import measure_peaks

BUDGET = 0.5  # seconds of timing per provider


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--sizes", choices=PRESETS, default="quick", help="sizes of the benchmarks' inputs")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("python_files", "bench_*.py")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    cases = metafunc.module.cases(metafunc.config.getoption("--sizes"))
    chosen = [
        pytest.param(case, provider, id=f"{case}-{provider}".replace(" ", "_"))
        for case in cases
        for provider in case.truth_first()
    ]
    metafunc.parametrize(("case", "provider"), chosen)


@pytest.fixture(scope="session")
def prepared() -> Callable[[Case], Bench]:
    """The inputs of a case, kept for its next provider."""
    last: list[Bench] = []

    def prepare(case: Case) -> Bench:
        if not last or last[0].case is not case:
            last[:] = []
            last.append(Bench(case))
        return last[0]

    return prepare


@pytest.fixture(scope="session")
def limits() -> Limits:
    """Decides which cells would take too long; a skipped benchmark says why."""
    return Limits(measure_peaks(CPU), CPU)


@pytest.fixture
def bench(
    benchmark, prepared: Callable[[Case], Bench], limits: Limits, case: Case, provider: str
) -> Callable[[], None]:
    """Check one provider's answer, then time it; other measurements go to the report's extra_info."""

    def run() -> None:
        if reason := limits.whole_case(case) or limits.cell(case, provider):
            pytest.skip(reason)
        ready = prepared(case)
        first = first_call(ready, provider)
        benchmark.group = str(case)
        benchmark.extra_info.update(
            pass_=case.passes,
            dtype=case.dtype,
            exactness=str(first.difference),
            floor_s=case.work and limits.peaks.floor(case.work(**case.sizes)),
            peak_memory_mb=first.peak_memory and round(first.peak_memory / 1e6, 1),
            **ready.facts,
        )
        planned = bench_plan(ready, provider, first, BUDGET)
        benchmark.pedantic(ready.run, args=(provider,), rounds=planned.rounds, iterations=planned.iterations)
        limits.add(case, provider, benchmark.stats.stats.median, first.peak_memory)

    return run
