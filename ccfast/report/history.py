"""The content of metrics.jsonl: the epochs' records, the headline numbers, and the time per stage."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]

#: The separator in the metrics of further protocols: "clothes_changing/mAP".
SEPARATOR = "/"


@dataclass(frozen=True)
class Tile:
    """One headline number of a run, and a line that puts it into context."""

    name: str
    value: str
    context: str


@dataclass(frozen=True)
class StageTime:
    """Seconds of a stage in all epochs, per epoch with this stage, and as a share of the whole run."""

    stage: str
    total: float
    mean: float
    share: float


def readable(records: list[Any]) -> list[Record]:
    """The records with an epoch, without None and non-finite numbers."""
    return [_finite(record) for record in records if isinstance(record, dict) and isinstance(record.get("epoch"), int)]


def _finite(record: Record) -> Record:
    known: Record = {}
    for name, value in record.items():
        if isinstance(value, dict):
            known[name] = _finite(value)
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            known[name] = value
    return known


def points(records: list[Record], name: str) -> list[tuple[int, float]]:
    """(epoch, value) of every record that has ``name``."""
    return [(record["epoch"], record[name]) for record in records if name in record]


def protocols(records: list[Record]) -> list[str]:
    """The prefixes of the records' mAP, in the order of their appearance: "" for the data set's own protocol."""
    names = [name for record in records for name in record if name.rpartition(SEPARATOR)[2] == "mAP"]
    return list(dict.fromkeys(name.removesuffix("mAP") for name in names))


def best_epoch(records: list[Record]) -> int | None:
    """The first epoch with the highest mAP."""
    measured = points(records, "mAP")
    return max(measured, key=lambda point: point[1])[0] if measured else None


def stages(records: list[Record]) -> list[StageTime]:
    """The time per stage, in the order in which the stages first ran."""
    totals: Counter[str] = Counter()
    epochs: Counter[str] = Counter()
    for record in sorted(records, key=lambda record: -len(record.get("seconds", {}))):
        totals.update(record.get("seconds", {}))
        epochs.update(record.get("seconds", {}).keys())
    whole = sum(totals.values()) or 1.0
    return [StageTime(stage, total, total / epochs[stage], total / whole) for stage, total in totals.items()]


def tiles(records: list[Record], images: int) -> list[Tile]:
    """The headline numbers; ``images`` is the number of training images."""
    found = [tile for prefix in protocols(records) for tile in _accuracy(records, prefix)]
    found += _clusters(records, images)
    total = sum(stage.total for stage in stages(records))
    trained = [sum(record.get("seconds", {}).values()) for record in records if record["epoch"] > 0]
    if total:
        context = f"{duration(sum(trained) / len(trained))} per epoch" if trained else "before training"
        found.append(Tile("time", duration(total), context))
    memory = points(records, "peak_memory_mb")
    if memory:
        found.append(Tile("peak memory", f"{max(value for _, value in memory):,.0f} MB", "largest of all epochs"))
    return found


def _accuracy(records: list[Record], prefix: str) -> list[Tile]:
    """mAP and rank-1 at the epoch with the highest mAP, and their values before training and at the end."""
    measured = points(records, prefix + "mAP")
    best, highest = max(measured, key=lambda point: point[1])
    label = f" ({prefix.removesuffix(SEPARATOR)})" if prefix else ""
    found = [Tile("mAP" + label, percent(highest), _course(measured, best))]
    ranked = points(records, prefix + "rank1")
    if best in dict(ranked):
        found.append(Tile("rank-1" + label, percent(dict(ranked)[best]), _course(ranked, best)))
    return found


def _course(measured: list[tuple[int, float]], best: int) -> str:
    """A metric before, at and after the epoch with the highest mAP."""
    (first, before), (last, after) = measured[0], measured[-1]
    context = "before training" if best == 0 else f"after epoch {best}"
    if first < last:
        context += ", the last" if best == last else ", the best"
    if first != best:
        context += f"; {percent(before)} before" if first == 0 else f"; {percent(before)} after epoch {first}"
    return context if last == best else f"{context}; {percent(after)} at the end"


def _clusters(records: list[Record], images: int) -> list[Tile]:
    counted = points(records, "clusters")
    if not counted:
        return []
    epoch, clusters = counted[-1]
    noise = dict(points(records, "noise")).get(epoch)
    context = f"at the start of epoch {epoch}"
    if noise is not None and images:
        context += f"; {noise / images:.0%} of {images:,} images in no cluster"
    for name, label in (("nmi", "NMI"), ("ari", "ARI"), ("purity", "purity")):
        known = dict(points(records, name))
        if epoch in known:
            context += f"; {label} {known[epoch]:.2f}"
    return [Tile("clusters", f"{clusters:,}", context)]


def percent(share: float) -> str:
    """A share in [0, 1], in percent with one digit."""
    return f"{100 * share:.1f}"


def duration(seconds: float) -> str:
    """ "0.42 s", "18.4 s", "3 min 20 s", "2 h 05 min"."""
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
