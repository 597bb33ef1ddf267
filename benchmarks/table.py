"""``python -m benchmarks.table``: tables from the newest result file of each device; ``--check`` only compares.

Five rows go to the README, the usual sizes to docs/benchmarks.md. A file beside the result file has everything that was
measured, and what was left out with the reason.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

from benchmarks import results
from benchmarks.attempts import GRAPH
from benchmarks.results import Row

README, PAGE = results.ROOT / "README.md", results.ROOT / "docs" / "benchmarks.md"
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
#: How times on a GPU are taken.
ON_CUDA = (
    "The GPU is idle before each call, so launch latency counts; rows with a CUDA graph replay the captured call, and "
    "it does not count there. Most of the reference is NumPy, and all of scikit-learn runs on the CPU."
)
#: The sizes that docs/benchmarks.md shows of a case that was measured at many.
USUAL = ({"N": 12_936, "D": 2048}, {"B": 256, "C": 500}, {"B": 256, "C": 3000}, {"B": 256, "C": 10_000})
#: Below this share of the floor, something else takes the time, and the share is not shown.
FLOOR_COUNTS = 0.1


class Headline(NamedTuple):
    """A row of the README's table."""

    what: str
    case: str
    sizes: dict[str, int]
    #: What users have now, best first: the first one that was measured is shown.
    peers: tuple[str, ...]


HEADLINES = (
    Headline(
        "pseudo-labels for 12,936 images from their features (D=2,048)",
        "features to labels", {"N": 12_936, "D": 2048}, ("reference",),
    ),
    Headline(
        "the 30 exact neighbours of each of these images",
        "knn", {"N": 12_936, "D": 2048}, ("faiss", "eager torch", "reference"),
    ),
    Headline(
        "loss of a batch of 256 against 3,000 clusters, forward and backward",
        "centroid_contrastive_loss", {"B": 256, "D": 2048, "C": 3000}, ("eager torch", "reference"),
    ),
    Headline(
        "update of the 3,000 clusters with this batch",
        "update_memory_ (sequential)", {"B": 256, "D": 2048, "C": 3000}, ("eager torch", "reference"),
    ),
    Headline(
        "re-ranking of 1,000 queries against 5,000 gallery images",
        "k_reciprocal_rerank", {"Q": 1000, "G": 5000, "D": 2048}, ("reference",),
    ),
)  # fmt: skip
#: What the README calls them.
PEERS = {"reference": "PyTorch and NumPy", "eager torch": "PyTorch"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.table", description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit with 1 if a table is not up to date")
    check = parser.parse_args().check
    newest = results.newest()
    wanted = {
        README: with_tables(README, [headlines(rows) for _, rows in newest]),
        PAGE: with_tables(PAGE, [table(rows, usual(by_case(rows))) for _, rows in newest]),
    }
    for path, rows in newest:
        wanted[path.with_suffix(".md")] = full_table(rows)
    for path, text in wanted.items():
        if check and (not path.exists() or path.read_text(encoding="utf-8") != text):
            sys.exit(
                f"{path.relative_to(results.ROOT)}: differs from the result files; run: python -m benchmarks.table"
            )
        if not check:
            path.write_text(text, encoding="utf-8")


def with_tables(page: Path, tables: list[str]) -> str:
    """The text of a page with a table for each device between the marks."""
    name = str(page.relative_to(results.ROOT))
    return between(page.read_text(encoding="utf-8"), name, BEGIN, END, "\n\n".join(tables))


def headlines(rows: list[Row]) -> str:
    """The README's table of one device."""
    lines = [_headline(headline, rows) for headline in HEADLINES]
    return "\n".join([
        f"{_all_of(rows, 'device')}; {_host(rows)}; torch {_all_of(rows, 'torch')}; float32; {_all_of(rows, 'date')}:",
        "",
        "| what | ccfast | what users have now | times faster |",
        "|---|--:|--:|--:|",
        *(line for line in lines if line is not None),
    ])  # fmt: skip


def _headline(headline: Headline, rows: list[Row]) -> str | None:
    """One line, or None if ccfast or every peer is missing on this device."""
    seconds_of = {
        row["provider"]: row["median_s"]
        for row in rows
        if row["case"] == headline.case and row["mode"] != GRAPH and "left_out" not in row
        and all(row["sizes"].get(name) == value for name, value in headline.sizes.items())
    }  # fmt: skip
    peer = next((name for name in headline.peers if name in seconds_of), None)
    if peer is None or "ccfast" not in seconds_of:
        return None
    mine, theirs = seconds_of["ccfast"], seconds_of[peer]
    cells = [headline.what, seconds(mine), f"{PEERS.get(peer, peer)}: {seconds(theirs)}", _times(theirs / mine)]
    return f"| {' | '.join(cells)} |"


def between(text: str, page: str, begin: str, end: str, content: str) -> str:
    """The ``text`` of a page, with ``content`` between the marks."""
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
    """Cases of one device in Markdown, one line per case."""
    lines = [_caption(rows), ""]
    lines += [f"| {' | '.join(name for name, _ in COLUMNS)} |", f"|{'|'.join(align for _, align in COLUMNS)}|"]
    lines += [_line({row["provider"]: row for row in case}) for case in cases]
    return "\n".join(lines)


def usual(cases: list[list[Row]]) -> list[list[Row]]:
    """The cases at the usual sizes; a case that has none of these, at all of its sizes."""

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


def _all_of(rows: list[Row], name: str) -> str:
    return " / ".join(sorted({str(row[name]) for row in rows}))


def _caption(rows: list[Row]) -> str:
    peaks = "; ".join(f"{name} {value:,}" for name, value in rows[-1].get("peaks", {}).items())
    floor = (
        " The floor is the larger of operations / rate and bytes / rate; the rates were measured in the same run: "
        f"{peaks}. No share is given below {FLOOR_COUNTS:.0%}: there the time goes to work that the floor does not "
        "count, such as sorting and scattered reads."
        if peaks
        else ""
    )
    if rows[-1]["cuda"]:
        floor = f" Times: {_all_of(rows, 'timing')}. {ON_CUDA}{floor}"
    return (
        f"{_all_of(rows, 'device')}; {_host(rows)}; torch {_all_of(rows, 'torch')}; commit {_all_of(rows, 'commit')}; "
        f"{_all_of(rows, 'date')}. Medians, float32; the implementations of a row took turns in one process."
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
        f"{mine['share_of_floor']:.0%}" if mine.get("share_of_floor", 0) >= FLOOR_COUNTS else "",
        _beside(reference, mine) if reference else "",
        "; ".join(f"{name}: {_beside(case[name], mine)}" for name in peers),
        "" if mine["mode"] == GRAPH else _memory(mine) + (f" / {_memory(reference)}" if reference else ""),
        _exactness(mine),
    ]
    return f"| {' | '.join(cells)} |"


def _line_without_ccfast(case: dict[str, Row]) -> str:
    """A case that ccfast could not do; the reason is in the list of what was left out."""
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
    """The other's time, and its ratio to ccfast's."""
    return f"{seconds(other['median_s'])} ({_times(other['median_s'] / mine['median_s'])}x)"


def _times(ratio: float) -> str:
    return f"{ratio:.{0 if ratio >= 10 else 2 if ratio < 2 else 1}f}"


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
