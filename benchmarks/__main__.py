"""``python -m benchmarks``: measure, and write the rows to a result file."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from benchmarks import results
from benchmarks.case import PRESETS, Case
from benchmarks.measure import Timing, measure

OPS = sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))
BUDGET = {"quick": 0.5, "full": 3.0}  # seconds of timing for a provider


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--op", choices=OPS, action="append", help="only this family; may be given again")
    parser.add_argument("--sizes", choices=PRESETS, default="quick", help="sizes of the inputs (default: quick)")
    parser.add_argument("--output", type=Path, default=results.FOLDER, metavar="DIR", help="where the result file goes")
    options = parser.parse_args()

    where = results.environment()
    print(", ".join(f"{name} {value}" for name, value in where.items()), flush=True)
    path = results.file_for(options.output, options.sizes, where)
    for op in options.op or OPS:
        for case in importlib.import_module(f"benchmarks.bench_{op}").cases(options.sizes):
            timings, facts = measure(case, BUDGET[options.sizes])
            _print(case, timings, facts)
            results.add(path, results.rows_of(case, timings, facts, where))
    print(path)


def _print(case: Case, timings: dict[str, Timing], facts: dict[str, float]) -> None:
    print(case, *(f"{name} {value}" for name, value in facts.items()), sep="; ")
    for provider, timing in timings.items():
        memory = timing.first.peak_memory
        print(
            f"  {provider:24s} {timing.quantile(0.5) * 1e3:12.3f} ms "
            f"{'' if memory is None else f'{memory / 1e6:.0f} MB':>9s}  {timing.first.difference}",
            flush=True,
        )


if __name__ == "__main__":
    main()
