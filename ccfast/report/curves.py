"""The page's charts: SVG drawn by matplotlib with the page's colours, so that they follow light and dark mode."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ccfast.report import history
from ccfast.report.history import Record

#: Inches; a chart fills its column of the page, so only the aspect ratio and the relative size of the text matter.
SIZE = (4.6, 2.7)

# matplotlib takes no CSS variables: these placeholder colours, used for nothing else, are replaced later.
INK, MUTED, GRID, CARD = "#010101", "#020202", "#030303", "#040404"
SERIES = [f"#0505{number:02d}" for number in range(8)]
VARIABLES = {INK: "ink", MUTED: "muted", GRID: "line", CARD: "card"} | {
    color: f"series-{number}" for number, color in enumerate(SERIES)
}

#: Line styles, so that lines can be distinguished without colours.
MARKERS, DASHES = ("o", "s", "^"), ("-", "--", ":")

#: More epochs than this are drawn with dashes for markers, and their bars without gaps.
CROWDED = 30

#: Bars of the histogram of distances.
BARS = 40

#: A learning rate that falls by more than this is drawn on a logarithmic axis.
WIDE = 5


@dataclass(frozen=True)
class Chart:
    """A titled drawing; ``svg`` is our own markup, which goes into the page unescaped."""

    title: str
    svg: str


def charts(records: list[Record]) -> list[Chart]:
    """The records' numbers over the epochs, except times; charts without points are left out."""
    last = max((record["epoch"] for record in records), default=0)
    measured = {name: history.points(records, name) for name in ("nmi", "ari", "purity", "silhouette", "last_ari")}
    rates, eps = history.points(records, "lr"), history.points(records, "eps")
    return [
        *_accuracy(records, last),
        *_lines("Loss", "contrastive loss", {"loss": history.points(records, "loss")}, last),
        *_lines("Clusters", "clusters", {"clusters": history.points(records, "clusters")}, last, from_0=True),
        *_lines("Noise", "images in no cluster", {"noise": history.points(records, "noise")}, last, from_0=True),
        *_lines(
            "Clusters against true identities",
            "agreement",
            {"NMI": measured["nmi"], "ARI": measured["ari"], "purity": measured["purity"]},
            last,
            most=1,
        ),
        *_lines(
            "Clusters without identities",
            "quality",
            {"silhouette": measured["silhouette"], "ARI with the last epoch": measured["last_ari"]},
            last,
            most=1,
        ),
        *(_lines("eps of the clustering", "eps", {"eps": eps}, last) if _moves(eps) else ()),
        *(
            _lines("Learning rate", "learning rate", {"rate": rates}, last, log=_wide(rates), from_0=True)
            if _moves(rates)
            else ()
        ),
        *_lines("Peak memory", "MB", {"memory": history.points(records, "peak_memory_mb")}, last, from_0=True),
    ]


def comparison_charts(records: list[Record], others: list[Record]) -> list[Chart]:
    """Accuracy and clusters of two runs over their epochs."""
    last = max((record["epoch"] for record in [*records, *others]), default=0)

    def both(name: str, scale: float) -> dict[str, list[tuple[int, float]]]:
        runs = {"this run": records, "other run": others}
        return {run: [(epoch, scale * value) for epoch, value in history.points(of, name)] for run, of in runs.items()}

    return [
        *_lines("mAP of both runs", "percent", both("mAP", 100), last, most=100),
        *_lines("Rank-1 of both runs", "percent", both("rank1", 100), last, most=100),
        *_lines("Clusters of both runs", "clusters", both("clusters", 1), last, from_0=True),
    ]


def histogram(sizes: list[int]) -> Chart:
    """The number of clusters by their number of images."""
    with _chart("Cluster sizes") as drawn:
        axes = drawn.axes
        axes.hist(sizes, bins=_bins(max(sizes)), color=SERIES[0], edgecolor=CARD, linewidth=1)
        axes.set(xlabel="images per cluster", ylabel="clusters")
        axes.yaxis.get_major_locator().set_params(integer=True)
    return drawn.chart


def _bins(largest: int) -> list[float]:
    """Edges between whole numbers, at most about thirty bins."""
    step = -(-largest // 30)
    return [0.5 + step * number for number in range(-(-largest // step) + 1)]


def constant_rate(records: list[Record]) -> float | None:
    """The learning rate, if it is the same in all epochs and needs no chart."""
    rates = history.points(records, "lr")
    return rates[0][1] if rates and not _moves(rates) else None


def _moves(rates: list[tuple[int, float]]) -> bool:
    return len({rate for _, rate in rates}) > 1


def cmc_chart(cmc: list[float]) -> Chart:
    """The share of queries with a match, over the ranks from 1."""
    with _chart("CMC") as drawn:
        axes = drawn.axes
        axes.plot(
            range(1, len(cmc) + 1), [100 * share for share in cmc], color=SERIES[0], marker=MARKERS[0], clip_on=False
        )
        axes.set(xlabel="rank", ylabel="percent of the queries", ylim=(max(0, 100 * cmc[0] // 10 * 10 - 10), 100))
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    return drawn.chart


def distance_chart(same: list[float], different: list[float]) -> Chart:
    """The distances of the same pairs and of the different pairs."""
    used = [place for place, pair in enumerate(zip(same, different, strict=True)) if any(pair)]
    wide, first = -(-(used[-1] - used[0] + 1) // BARS), used[0]
    edges = [4 * place / len(same) for place in range(first, used[-1] + wide + 1, wide)]
    with _chart("Distances of pairs") as drawn:
        axes = drawn.axes
        for number, (name, shares) in enumerate((("same identity", same), ("different", different))):
            heights = [
                100 * sum(shares[first + wide * bar : first + wide * (bar + 1)]) for bar in range(len(edges) - 1)
            ]
            axes.stairs(heights, edges, color=SERIES[number], fill=True, alpha=0.3)
            axes.stairs(heights, edges, color=SERIES[number], linestyle=DASHES[number], linewidth=1.5, label=name)
        axes.set(xlabel="squared distance of unit features", ylabel="percent of the pairs")
        _legend(axes, 2)
    return drawn.chart


def _wide(rates: list[tuple[int, float]]) -> bool:
    values = [value for _, value in rates]
    return bool(values) and min(values) > 0 and max(values) / min(values) > WIDE


def _accuracy(records: list[Record], last: int) -> Iterator[Chart]:
    for prefix in history.protocols(records):
        percents = {
            label: [(epoch, 100 * value) for epoch, value in history.points(records, prefix + name)]
            for name, label in (("mAP", "mAP"), ("rank1", "rank-1"))
        }
        title = "Accuracy" + (f": {prefix.removesuffix(history.SEPARATOR)}" if prefix else "")
        yield from _lines(title, "percent", percents, last, most=100)


def _lines(
    title: str,
    unit: str,
    series: dict[str, list[tuple[int, float]]],
    last: int,
    *,
    log: bool = False,
    from_0: bool = False,
    most: float | None = None,
) -> Iterator[Chart]:
    """One chart of lines over the epochs 0 .. last, or none if there is no point; ``most``: the largest value."""
    known = {name: values for name, values in series.items() if values}
    if not known:
        return
    with _chart(title) as drawn:
        axes = drawn.axes
        for number, (name, values) in enumerate(known.items()):
            shape = {"marker": MARKERS[number]} if len(values) <= CROWDED else {"linestyle": DASHES[number]}
            axes.plot(*zip(*values, strict=True), color=SERIES[number], label=name, clip_on=most is None, **shape)
        if log:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")  # its own formatter writes TeX
            axes.yaxis.set_minor_formatter("")
        elif from_0:
            axes.set_ylim(bottom=0, top=1.12 * max(max(y for _, y in values) for values in known.values()) or 1)
        elif most is not None:
            bottom, top = axes.get_ylim()
            negative = min(y for values in known.values() for _, y in values) < 0
            axes.set_ylim(bottom if negative else max(bottom, 0), min(top, most))
        _epochs(axes, unit, min(values[0][0] for values in known.values()), last)
        if len(known) > 1:
            _legend(axes, len(known))
    yield drawn.chart


def time_chart(records: list[Record]) -> Chart | None:
    """Seconds per stage, stacked in the order of :func:`history.stages`, whose table is the legend; or None."""
    timed = [record for record in records if record.get("seconds")]
    if not timed:
        return None
    with _chart("Seconds per epoch") as drawn:
        epochs = [record["epoch"] for record in timed]
        below = [0.0] * len(timed)
        for number, timing in enumerate(history.stages(timed)):
            heights = [record["seconds"].get(timing.stage, 0.0) for record in timed]
            color = SERIES[number % len(SERIES)]
            edge = {"edgecolor": CARD, "linewidth": 0.8} if len(timed) <= CROWDED else {"linewidth": 0}
            drawn.axes.bar(epochs, heights, bottom=below, width=0.8, color=color, **edge)
            below = [start + height for start, height in zip(below, heights, strict=True)]
        _epochs(drawn.axes, "seconds", min(epochs), max(epochs))
    return drawn.chart


def _epochs(axes: Any, unit: str, first: int, last: int) -> None:
    """From the first epoch with a value to the run's last one; ticks at whole epochs."""
    margin = max(0.5, 0.04 * (last - first))
    axes.set(xlabel="epoch", ylabel=unit, xlim=(first - margin, last + margin))
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)


def _legend(axes: Any, entries: int) -> None:
    """Above the axes, where no curve can be."""
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=entries, frameon=False, borderaxespad=0.2,
        handlelength=1.4, columnspacing=1.2, labelcolor=INK,
    )  # fmt: skip


class _Drawn:
    """The axes to draw on, and the chart once it is done."""

    axes: Any
    chart: Chart


STYLE: dict[str, Any] = {
    "svg.fonttype": "none", "text.color": INK, "text.parse_math": False, "font.size": 10, "axes.spines.top": False,
    "axes.spines.right": False, "axes.edgecolor": MUTED, "axes.labelcolor": MUTED, "xtick.color": MUTED,
    "ytick.color": MUTED, "axes.grid": True, "axes.grid.axis": "y", "grid.color": GRID, "axes.axisbelow": True,
    "lines.linewidth": 2, "lines.markersize": 5, "lines.solid_capstyle": "round",
}  # fmt: skip


@contextmanager
def _chart(title: str) -> Iterator[_Drawn]:
    import matplotlib
    from matplotlib.figure import Figure

    drawn = _Drawn()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": title}):
        figure = Figure(figsize=SIZE, layout="constrained")
        drawn.axes = figure.subplots()
        yield drawn
        file = io.StringIO()
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=metadata)
    drawn.chart = Chart(title, _inline(file.getvalue(), title))


def _inline(svg: str, title: str) -> str:
    """The drawing as an element of an HTML page, with the page's colours and font and with unique names."""
    box = re.search(r'viewBox="([^"]*)"', svg)[1]
    svg = svg[re.search(r"<svg[^>]*>", svg).end() :]
    prefix = re.sub(r"\W+", "-", title.lower())
    svg = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    svg = re.sub("|".join(VARIABLES), lambda match: f"var(--{VARIABLES[match[0]]})", svg)
    return f'<svg class="chart" viewBox="{box}" aria-hidden="true">{svg}'
