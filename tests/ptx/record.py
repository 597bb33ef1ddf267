"""The counts that the repository stores, and what has become worse since."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

from . import build, cases, counters, executor

FILE = build.ROOT / "benchmarks" / "results" / "ptx_counters.json"
ROWS = 256
#: A counter may grow by this share, or by this number if that is more, before the file must change.
SHARE, NUMBER = 0.03, 16

Numbers = dict[str, dict[str, int]]  # by kernel, by counter


def nvcc_release() -> str:
    """The version of nvcc: the counts of another release differ."""
    text = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    return re.search(r"release ([\d.]+)", text)[1]


def count(op: str, case: str, rows: int = ROWS) -> tuple[Numbers, dict[str, counters.Counts], Any]:
    """Runs a case on the installed executor. Returns the numbers for the file, the counts by kernel, and by line."""
    executor.clear_counts()
    executor.configure(races=False)
    list(cases.OPS[op][case](rows))
    kernels, lines = counters.collect()
    return {name: counts.flat() for name, counts in kernels.items()}, kernels, lines


def read() -> dict[str, Any]:
    """The file."""
    return json.loads(FILE.read_text())


def write(numbers: dict[str, Numbers], launched: set[str]) -> None:
    """Replaces the file; ``launched``: the kernels' names in C++."""
    kernels = (
        f'  "{case}": {{\n'
        + ",\n".join(f"    {json.dumps(kernel)}: {json.dumps(values)}" for kernel, values in sorted(found.items()))
        + "\n  }"
        for case, found in numbers.items()
    )
    head = {"nvcc": nvcc_release(), "rows": ROWS, "kernels": sorted(launched)}
    lines = ",\n".join([*(f'  "{key}": {json.dumps(value)}' for key, value in head.items()), *kernels])
    FILE.write_text(f"{{\n{lines}\n}}\n")


def worse(before: Numbers, now: Numbers) -> list[str]:
    """What has become worse, one line each, including new and missing kernels."""
    found = [f"{kernel}: new" for kernel in now.keys() - before.keys()]
    found += [f"{kernel}: gone" for kernel in before.keys() - now.keys()]
    for kernel in now.keys() & before.keys():
        for counter, number in now[kernel].items():
            old = before[kernel].get(counter, 0)
            if number > old + max(SHARE * old, NUMBER):
                found.append(f"{kernel}: {counter} {old} -> {number}")
    return sorted(found)
