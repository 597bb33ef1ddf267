"""``python -m tests.ptx [--op knn]``: runs ops on nvcc's code and prints the cost of their kernels."""

from __future__ import annotations

import argparse
import os
import sys

os.environ["CCFAST_EMULATE"] = "1"  # read when ccfast is loaded

from . import build, cases, counters, executor, record


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.ptx", description=__doc__)
    parser.add_argument("--op", choices=sorted(cases.OPS), help="one op; all of them where this is left out")
    parser.add_argument("--rows", type=int, default=record.ROWS, help="of the inputs (default: %(default)s)")
    parser.add_argument("--lines", type=int, default=0, metavar="N", help="also the N dearest lines of each kernel")
    parser.add_argument("--update", action="store_true", help=f"write them to {record.FILE.relative_to(build.ROOT)}")
    options = parser.parse_args()
    if options.update and options.rows != record.ROWS:
        parser.error(f"--update keeps the counts at {record.ROWS} rows: leave --rows out")
    return options


def _print(kernels: dict[str, counters.Counts], lines: dict[tuple[str, str], counters.Counts], most: int) -> None:
    columns = ("launches", "blocks", "warps", "total", "global_requests", "sectors", "shared_requests", "wavefronts")
    columns += ("barriers", "atomics", "divergences")
    heads = ("launches", "blocks", "warps", "instr.", "global", "sectors", "shared", "wavefr.", "barriers", "atomics")
    heads += ("diverged",)
    width = max(len(name) for name in kernels)
    print(f"{'kernel':{width}}" + "".join(f"{head:>10}" for head in heads) + f"{'lanes':>7}  by class")
    for name, counts in kernels.items():
        numbers = "".join(f"{getattr(counts, column):10d}" for column in columns)
        classes = ", ".join(f"{kind} {number}" for kind, number in counts.instructions.items() if number)
        print(f"{name:{width}}{numbers}{counts.lanes / max(1, counts.total):7.1f}  {classes}")
        mine = [(place, of_line) for (kernel, place), of_line in lines.items() if kernel == name]
        for place, of_line in sorted(mine, key=lambda item: -item[1].total)[:most]:
            costs = f"instr. {of_line.total}, sectors {of_line.sectors}, wavefronts {of_line.wavefronts}"
            print(f"    {place:{width}} {costs}")


def _count(options: argparse.Namespace) -> tuple[dict[str, record.Numbers], set[str]]:
    found, launched = {}, set()
    for op in [options.op] if options.op else cases.OPS:
        for name in cases.OPS[op]:
            print(f"\n{name}, {options.rows} rows", flush=True)
            found[name], kernels, lines = record.count(op, name, options.rows)
            _print(kernels, lines, options.lines)
            launched |= {counts.kernel for counts in kernels.values()}
    return found, launched


def main() -> int:
    """Runs the command."""
    options = _arguments()
    reason = build.missing()
    extension = executor.emulated_extension()
    if reason or extension is None:
        print(reason or "ccfast._C_emulated was not built: set CCFAST_EMULATE=1 for the build", file=sys.stderr)
        return 1
    with executor.installed(extension):
        found, launched = _count(options)
    if options.update:
        before = record.read() if record.FILE.exists() else {}
        launched |= set(before.get("kernels", []))
        record.write({name: found.get(name, before.get(name, {})) for name in cases.names()}, launched)
    return 0


if __name__ == "__main__":
    sys.exit(main())
