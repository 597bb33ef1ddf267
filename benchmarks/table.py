"""``python -m benchmarks.table``: tables from the newest result file of each device; ``--check`` only compares.

The usual sizes go to the README; everything measured, and what was left out with the reason, beside the result file.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks import results
from benchmarks.attempts import GRAPH
from benchmarks.results import Row

README = results.ROOT / "README.md"
BEGIN, END = "<!-- benchmarks: begin, written by python -m benchmarks.table -->", "<!-- benchmarks: end -->"
COLUMNS = (
    ("what", "---"),
    ("sizes", "---"),
    ("ccfast", "--:"),
    ("of the floor", "--:"),
    ("reference", "--:"),
    ("other peers", "--:"),
    ("extra memory: ccfast / reference", "--:"),
    ("ccfast's answer", "---"),
)
#: What to know of times on a GPU.
ON_CUDA = (
    "A call finds the GPU idle, and waits for launches count; in rows of a CUDA graph it is captured and replayed, and "
    "they do not. Of the reference most is NumPy, and scikit-learn is all of it on the CPU."
)
#: The sizes that the README shows of a case that was measured at many.
USUAL = ({"N": 12_936, "D": 2048}, {"B": 256, "C": 500}, {"B": 256, "C": 3000}, {"B": 256, "C": 10_000})


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.table", description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit with 1 where the README's table is not up to date")
    check = parser.parse_args().check
    wanted = {README: with_tables(README.read_text(encoding="utf-8"))}
    for path, rows in results.newest():
        wanted[path.with_suffix(".md")] = full_table(rows)
    for path, text in wanted.items():
        if check and (not path.exists() or path.read_text(encoding="utf-8") != text):
            sys.exit(
                f"{path.relative_to(results.ROOT)}: differs from the result files; run: python -m benchmarks.table"
            )
        if not check:
            path.write_text(text, encoding="utf-8")


def with_tables(text: str) -> str:
    """The README with a table for each device between the marks."""
    tables = (table(rows, usual(by_case(rows))) for _, rows in results.newest())
    return between(text, "README.md", BEGIN, END, "\n\n".join(tables))


def between(text: str, page: str, begin: str, end: str, content: str) -> str:
    """The ``text`` of a page with ``content`` in the place of what stands between the marks."""
    before, _, rest = text.partition(begin)
    _, mark, after = rest.partition(end)
    if not mark:
        sys.exit(f"{page}: expected the marks {begin} and {end}")
    return f"{before}{begin}\n{content}\n{end}{after}"


def full_table(rows: list[Row]) -> str:
    """Every case that was measured, and every cell that was not."""
    lines = ["<!-- written by python -m benchmarks.table -->", "", table(rows, by_case(rows))]
    left_out = [row for row in rows if "left_out" in row]
    if left_out:
        lines += ["", "Left out:", "", "| what | sizes | provider | why |", "|---|---|---|---|"]
        lines += [f"| {_what(row)} | {_sizes(row)} | {row['provider']} | {row['left_out']} |" for row in left_out]
    return "\n".join(lines) + "\n"


def table(rows: list[Row], cases: list[list[Row]]) -> str:
    """Cases of one device in Markdown, a line each."""
    lines = [_caption(rows), ""]
    lines += [f"| {' | '.join(name for name, _ in COLUMNS)} |", f"|{'|'.join(align for _, align in COLUMNS)}|"]
    lines += [_line({row["provider"]: row for row in case}) for case in cases]
    return "\n".join(lines)


def usual(cases: list[list[Row]]) -> list[list[Row]]:
    """The cases at the usual sizes, or at all of theirs where they have none of them."""

    def is_usual(row: Row) -> bool:
        return any(all(row["sizes"].get(name) == value for name, value in sizes.items()) for sizes in USUAL)

    known = {case[0]["case"] for case in cases if is_usual(case[0])}
    return [case for case in cases if is_usual(case[0]) or case[0]["case"] not in known]


def by_case(rows: list[Row]) -> list[list[Row]]:
    """The measured rows of each case, the whole chain first."""
    cases: dict[str, list[Row]] = {}
    measured = [row for row in rows if "left_out" not in row]
    for row in sorted(measured, key=lambda row: (row["op"] != "pseudo_labels", row["op"])):
        cases.setdefault(f"{row['case']} {row['sizes']} {row['mode']}", []).append(row)
    return list(cases.values())


def _caption(rows: list[Row]) -> str:
    def all_of(name: str) -> str:
        return " / ".join(sorted({str(row[name]) for row in rows}))

    peaks = "; ".join(f"{name} {value:,}" for name, value in rows[-1].get("peaks", {}).items())
    floor = f" The floor is the larger of operations / rate and bytes / rate, with this run's {peaks}." if peaks else ""
    if rows[-1]["cuda"]:
        floor = f" Times: {all_of('timing')}. {ON_CUDA}{floor}"
    return (
        f"{all_of('device')}; {_host(rows)}; torch {all_of('torch')}; commit {all_of('commit')}; "
        f"{all_of('date')}. Medians; float32; every row's providers took turns in one process."
        f"{floor}"
    )


def _host(rows: list[Row]) -> str:
    return f"CUDA {rows[-1]['cuda']}" if rows[-1]["cuda"] else f"{rows[-1]['threads']} threads"


def _line(case: dict[str, Row]) -> str:
    if "ccfast" not in case:
        return _line_without_ccfast(case)
    mine, reference = case["ccfast"], case.get("reference")
    peers = [name for name in case if name not in ("ccfast", "reference")]
    cells = [
        _what(mine),
        _sizes(mine),
        seconds(mine["median_s"]),
        f"{mine['share_of_floor']:.0%}" if "share_of_floor" in mine else "",
        _beside(reference, mine) if reference else "",
        "; ".join(f"{name}: {_beside(case[name], mine)}" for name in peers),
        "" if mine["mode"] == GRAPH else _memory(mine) + (f" / {_memory(reference)}" if reference else ""),
        _exactness(mine),
    ]
    return f"| {' | '.join(cells)} |"


def _line_without_ccfast(case: dict[str, Row]) -> str:
    """Nothing to compare with: why is among what was left out."""
    any_row = next(iter(case.values()))
    times = {name: seconds(row["median_s"]) for name, row in case.items()}
    others = "; ".join(f"{name}: {time}" for name, time in times.items() if name != "reference")
    cells = [_what(any_row), _sizes(any_row), "left out", "", times.get("reference", ""), others, "", ""]
    return f"| {' | '.join(cells)} |"


def _what(row: Row) -> str:
    passes = "" if row["pass"] == "forward" else f", {row['pass']}"
    return f"{row['case']}{passes}{', CUDA graph' if row['mode'] == GRAPH else ''}"


def _sizes(row: Row) -> str:
    return ", ".join(f"{name}={value:,}" for name, value in row["sizes"].items())


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
    what, value = row["exactness"]["what"], row["exactness"]["value"]
    return what if value is None else f"{what}: {value:.2g}"


if __name__ == "__main__":
    main()
