"""``python -m benchmarks.plot``: pictures from the newest result file of each device, in docs/images/."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks import plot_scaling, results
from benchmarks.attempts import GRAPH
from benchmarks.results import Row
from benchmarks.table import by_case, seconds, usual

FOLDER = results.ROOT / "docs" / "images"
COLOURS = {"reference": "#9aa7b2", "eager torch": "#e0a458", "scikit-learn": "#5b9279", "ccfast": "#1b5fa8"}
#: Lines of the picture from top to bottom, by the name of their case.
SHOWN = {
    "features to labels": "features to pseudo-labels",
    "labels after kNN": "of which after the neighbour search",
    "dbscan on sparse distances": "DBSCAN on sparse distances",
    "k_reciprocal_rerank": "re-ranking",
    "evaluate_ranking": "mAP, CMC and mINP",
    "update_memory_ (sequential)": "memory update with a batch",
    "centroid_contrastive_loss": "loss, forward and backward",
}


def main() -> None:
    for _, rows in results.newest():
        device = "cuda" if rows[0]["cuda"] else "cpu"
        for name, picture in (("benchmarks", draw), ("scaling", plot_scaling.draw)):
            path = FOLDER / f"{name}-{device}.png"
            picture(rows, path)
            print(path)


def draw(rows: list[Row], path: Path) -> None:
    """One line per case that has other providers: the times and the memory of all providers."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    cases = [
        case
        for name in SHOWN
        for case in usual(by_case(rows))
        if case[0]["case"] == name and len({row["provider"] for row in case} & {*COLOURS}) > 1
    ]
    figure, (time, memory) = plt.subplots(
        1, 2, figsize=(13, 1.3 + 0.55 * len(cases)), width_ratios=(3, 2), sharey=True, layout="constrained"
    )
    _dots(time, cases, lambda row: row["median_s"], seconds)
    _dots(memory, cases, _memory, megabytes)
    time.set_title("time")
    memory.set_title("additional peak memory")
    time.set_yticks(range(len(cases)), [_label(case[0]) for case in cases])
    time.set_ylim(len(cases) - 0.4, -0.6)
    handles, names = time.get_legend_handles_labels()
    by_name = dict(zip(names, handles, strict=True))
    figure.legend([by_name[name] for name in COLOURS if name in by_name], [*filter(by_name.get, COLOURS)], ncols=4,
                  loc="outside lower center", frameon=False)  # fmt: skip
    first = rows[0]
    host = f"CUDA {first['cuda']}" if first["cuda"] else f"{first['threads']} threads"
    figure.suptitle(f"{first['device']}, {host}, torch {first['torch']}, float32; left is better")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _memory(row: Row) -> float | None:
    return None if row["peak_memory_bytes"] is None else max(1e6, row["peak_memory_bytes"])


def _dots(axes, cases: list[list[Row]], value: Callable[[Row], float | None], text: Callable[[float], str]) -> None:
    """One dot per provider, on a logarithmic axis; the first and the last are labelled."""
    for position, case in enumerate(cases):
        found = {row["provider"]: value(row) for row in case if row["provider"] in COLOURS}
        numbers = {provider: number for provider, number in found.items() if number is not None}
        if not numbers:
            continue
        axes.plot([min(numbers.values()), max(numbers.values())], [position, position], color="#d5dbe0", zorder=1)
        for provider in filter(numbers.get, COLOURS):
            axes.scatter(numbers[provider], position, s=60, color=COLOURS[provider], label=provider, zorder=2)
        low, high = min(numbers.values()), max(numbers.values())
        axes.annotate(text(low), (low, position), (-8, 0), textcoords="offset points", ha="right", va="center")
        axes.annotate(text(high), (high, position), (8, 0), textcoords="offset points", ha="left", va="center")
    axes.set_xscale("log")
    axes.margins(x=0.2)
    axes.xaxis.set_major_formatter(lambda number, _: text(number))
    axes.grid(axis="x", color="#eef1f3")
    axes.set_axisbelow(True)
    axes.tick_params(length=0, which="both")
    axes.spines[:].set_visible(False)


def _label(row: Row) -> str:
    sizes = ", ".join(f"{name}={value:,}" for name, value in row["sizes"].items() if name in "NDBCQG")
    graph = ", CUDA graph" if row["mode"] == GRAPH else ""
    return f"{SHOWN[row['case']]}{graph}\n{sizes}"


def megabytes(value: float) -> str:
    """Whole megabytes."""
    return "1 MB or less" if value <= 1e6 else f"{value / 1e6:,.0f} MB"


if __name__ == "__main__":
    main()
