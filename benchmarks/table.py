"""``python -m benchmarks.table``: the README's table from the result files; ``--check`` only compares."""

from __future__ import annotations

import argparse
import sys

from benchmarks import results
from benchmarks.results import Row

README = results.ROOT / "README.md"
BEGIN, END = "<!-- benchmarks: begin, written by python -m benchmarks.table -->", "<!-- benchmarks: end -->"
HEADER = "| what | sizes | ccfast | reference | other peers | extra memory: ccfast / reference | ccfast's answer |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.table", description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit with 1 where the README's table is not up to date")
    check = parser.parse_args().check
    text = README.read_text(encoding="utf-8")
    wanted = with_tables(text)
    if check and text != wanted:
        sys.exit("README.md: its table differs from the result files; run: python -m benchmarks.table")
    README.write_text(wanted, encoding="utf-8")


def with_tables(text: str) -> str:
    """The README with a table for each device between the marks."""
    before, _, rest = text.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        sys.exit(f"README.md: expected the marks {BEGIN} and {END}")
    tables = "\n".join(f"{table(rows)}\n" for rows in results.newest())
    return f"{before}{BEGIN}\n{tables}{END}{after}"


def table(rows: list[Row]) -> str:
    """One device's rows in Markdown, a line for each case."""
    lines = [_caption(rows), "", HEADER, "|---|---|--:|--:|--:|--:|---|"]
    lines += [_line({row["provider"]: row for row in case}) for case in by_case(rows)]
    return "\n".join(lines)


def by_case(rows: list[Row]) -> list[list[Row]]:
    """The rows of each case, the whole chain first."""
    cases: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row["op"] != "pseudo_labels", row["op"])):
        cases.setdefault(f"{row['case']} {row['sizes']}", []).append(row)
    return list(cases.values())


def _caption(rows: list[Row]) -> str:
    def all_of(name: str) -> str:
        return " / ".join(sorted({str(row[name]) for row in rows}))

    return (
        f"{all_of('device')}; {all_of('threads')} threads; torch {all_of('torch')}; commit {all_of('commit')}; "
        f"{all_of('date')}. Medians; float32; every row's providers took turns in one process."
    )


def _line(case: dict[str, Row]) -> str:
    mine, reference = case["ccfast"], case.get("reference")
    peers = [name for name in case if name not in ("ccfast", "reference")]
    cells = [
        mine["case"] + ("" if mine["pass"] == "forward" else f", {mine['pass']}"),
        ", ".join(f"{name}={value:,}" for name, value in mine["sizes"].items()),
        seconds(mine["median_s"]),
        _beside(reference, mine) if reference else "",
        "; ".join(f"{name}: {_beside(case[name], mine)}" for name in peers),
        _memory(mine) + (f" / {_memory(reference)}" if reference else ""),
        _exactness(mine),
    ]
    return f"| {' | '.join(cells)} |"


def _beside(other: Row, mine: Row) -> str:
    """The other's time, and how many times ccfast's it is."""
    ratio = other["median_s"] / mine["median_s"]
    return f"{seconds(other['median_s'])} ({ratio:.{0 if ratio >= 10 else 2 if ratio < 2 else 1}f}x)"


def seconds(value: float) -> str:
    """Three digits and a unit."""
    for unit, scale in (("s", 1), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value:.2g} s"


def _memory(row: Row) -> str:
    memory = row["peak_memory_bytes"]
    if memory is None:
        return "?"
    return "< 1 MB" if memory < 1e6 else f"{memory / 1e6:,.0f} MB"


def _exactness(row: Row) -> str:
    exactness = row["exactness"]
    return f"{exactness['what']}: {exactness['value']:.2g}"


if __name__ == "__main__":
    main()
