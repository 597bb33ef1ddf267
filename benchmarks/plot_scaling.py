"""The growth of time and memory with N: times and the floor, the stages of an epoch's labels, and memory."""

from __future__ import annotations

from pathlib import Path

from benchmarks.results import Row

DIM = 2048
COLOURS = {
    "ccfast": "#1b5fa8",
    "reference": "#9aa7b2",
    "eager torch": "#e0a458",
    "eager torch, bf16": "#b5651d",
    "faiss": "#5b9279",
}
#: The stages between features and labels: (label, its case, the case whose time it also contains).
STAGES = (
    ("neighbours", "knn", None),
    ("k-reciprocal encoding", "k_reciprocal_encoding after kNN", None),
    ("sparse Jaccard distance", "sparse jaccard_distance after kNN", "k_reciprocal_encoding after kNN"),
    ("DBSCAN", "dbscan on sparse distances", None),
)
STAGE_COLOURS = ("#1b5fa8", "#5b9279", "#e0a458", "#9aa7b2")


def draw(rows: list[Row], path: Path) -> None:
    """Three panels side by side."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import NullFormatter

    figure, (time, stages, memory) = plt.subplots(1, 3, figsize=(15, 4.6), layout="constrained")
    _lines(time, rows, "knn", "median_s")
    _floor(time, rows, "knn")
    time.set(title=f"exact neighbours, D={DIM:,}", xlabel="N", ylabel="seconds")
    _stages(stages, rows)
    stages.set(title=f"features to pseudo-labels by ccfast, D={DIM:,}", xlabel="N", ylabel="seconds")
    _lines(memory, rows, "features to labels", "peak_memory_bytes", scale=1e-6)
    memory.set(title="features to pseudo-labels: additional peak memory", xlabel="N", ylabel="MB")
    time.set(yscale="log")
    sizes = sorted({*_measured(rows, "knn"), *_measured(rows, "features to labels")})
    for axes in (time, memory):
        axes.set(xscale="log")
        axes.set_xticks(sizes, [f"{n:,}" for n in sizes])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(color="#eef1f3", which="both")
    for axes in (time, stages, memory):
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=8)
    first = rows[0]
    host = f"CUDA {first['cuda']}" if first["cuda"] else f"{first['threads']} threads"
    figure.suptitle(f"{first['device']}, {host}, torch {first['torch']}")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _measured(rows: list[Row], case: str, provider: str = "ccfast") -> dict[int, Row]:
    """The rows of a case by N, ascending."""
    found = {
        row["sizes"]["N"]: row
        for row in rows
        if (row["case"], row["provider"]) == (case, provider) and row["sizes"].get("D") == DIM and "left_out" not in row
    }
    return dict(sorted(found.items()))


def _lines(axes, rows: list[Row], case: str, value: str, scale: float = 1) -> None:
    for provider, colour in COLOURS.items():
        found = {n: row[value] * scale for n, row in _measured(rows, case, provider).items() if row[value]}
        if found:
            axes.plot(list(found), list(found.values()), "o-", color=colour, label=provider)


def _floor(axes, rows: list[Row], case: str) -> None:
    """The floor of all sizes, including those without measurements."""
    found = {row["sizes"]["N"]: row["floor_s"] for row in rows if row["case"] == case and "floor_s" in row
             and row["sizes"]["D"] == DIM and row["sizes"]["N"] <= max(_measured(rows, case), default=0)}  # fmt: skip
    if found:
        axes.plot(sorted(found), [found[n] for n in sorted(found)], "--", color="#c0392b", label="floor")


def _stages(axes, rows: list[Row]) -> None:
    """One bar per N at which all stages were measured."""
    measured = {case: _measured(rows, case) for _, *cases in STAGES for case in cases if case}
    sizes = sorted(set.intersection(*map(set, measured.values())))
    below = [0.0] * len(sizes)
    for (label, case, less), colour in zip(STAGES, STAGE_COLOURS, strict=True):
        times = [measured[case][n]["median_s"] - (measured[less][n]["median_s"] if less else 0) for n in sizes]
        axes.bar([f"{n:,}" for n in sizes], times, bottom=below, color=colour, label=label)
        below = [low + time for low, time in zip(below, times, strict=True)]
