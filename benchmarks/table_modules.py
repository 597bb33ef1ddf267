"""``python -m benchmarks.table_modules``: the table of the modules in docs/benchmarks.md; ``--check`` only compares.

Made from the newest ``*-modules.json`` among the results, which come from ``python -m benchmarks --op modules --op
similarity --sizes full``.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks import results
from benchmarks.bench_modules import KINDS
from benchmarks.results import Row
from benchmarks.table import between, seconds

PAGE = results.ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- modules: begin, written by python -m benchmarks.table_modules -->", "<!-- modules: end -->"
OPS = {"memory_similarity": "the product and the update"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.table_modules", description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit with 1 if the page is not up to date")
    check = parser.parse_args().check
    text = PAGE.read_text(encoding="utf-8")
    wanted = with_table(text)
    if check and text != wanted:
        sys.exit("docs/benchmarks.md: differs from the result file; run: python -m benchmarks.table_modules")
    if not check:
        PAGE.write_text(wanted, encoding="utf-8")


def with_table(text: str) -> str:
    """The page with the table between the marks."""
    path = max(results.FOLDER.glob("*-modules.json"), key=lambda path: path.name)
    rows = [row for row in results.read(path) if row["case"] in KINDS or row["case"] in OPS]
    return between(text, "docs/benchmarks.md", BEGIN, END, table(rows))


def table(rows: list[Row]) -> str:
    """One line per module and size."""
    cases: dict[str, dict[str, Row]] = {}
    for row in rows:
        cases.setdefault(f"{row['case']} {row['sizes']}", {})[row["provider"]] = row
    first = rows[0]
    lines = [
        f"{first['device']}; {first['threads']} thread(s), {first['timing']}, load {max(row['load'] for row in rows):g}"
        f"; torch {first['torch']}; commit {first['commit']}; {first['date']}. Medians of one process, in turns.",
        "",
        "| module | sizes | ccfast | eager PyTorch | reference | saved by |",
        "|---|---|--:|--:|--:|---|",
    ]
    for case in cases.values():
        mine = case["ccfast"]
        name = mine["case"]
        sizes = ", ".join(f"{letter}={value:,}" for letter, value in mine["sizes"].items())
        others = [_beside(case.get(peer), mine) for peer in ("eager torch", "reference")]
        gain = KINDS[name].gain if name in KINDS else OPS[name]
        lines.append(f"| {' | '.join([f'`{name}`', sizes, seconds(mine['median_s']), *others, gain])} |")
    return "\n".join(lines)


def _beside(other: Row | None, mine: Row) -> str:
    if other is None or "left_out" in other:
        return "left out"
    return f"{seconds(other['median_s'])} ({other['median_s'] / mine['median_s']:.2f}x)"


if __name__ == "__main__":
    main()
