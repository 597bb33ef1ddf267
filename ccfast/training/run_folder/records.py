"""metrics.jsonl: one JSON object per line and epoch. Damaged lines are left out and reported."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

Record = dict[str, Any]

#: More epochs than any run has.
LARGEST_EPOCH = 2**31 - 1

#: The numbers (or None) of a record, besides its epoch and its seconds. A further protocol puts its name before its
#: metrics ("clothes_changing/mAP").
NUMBERS = (
    "loss", "clusters", "noise", "largest", "eps", "silhouette", "last_ari", "lr", "nmi", "ari", "purity",
    "peak_memory_mb", "mAP", "mINP",
)  # fmt: skip
RANK = "rank"

#: Number of faults that a message names.
NAMED = 3


class Found(NamedTuple):
    """The intact ``records`` in the order of their epochs, and texts about the other lines."""

    records: list[Record]
    faults: list[str]

    def told(self) -> str:
        """The faults in a few words."""
        more = f" and {len(self.faults) - NAMED} more" if len(self.faults) > NAMED else ""
        return "; ".join(self.faults[:NAMED]) + more


def read_records(path: Path) -> Found:
    """The content of the file ``path``; empty if it does not exist. If an epoch has two records, the later one is used.

    Raises:
        OSError: it cannot be read.
    """
    if not os.path.lexists(path):
        return Found([], [])
    if path.exists() and not path.is_file():
        return Found([], [f"{path.name} is not a file"])
    records: dict[int, Record] = {}
    faults = []
    for number, line in enumerate(path.read_bytes().split(b"\n") if path.exists() else (), 1):
        if not line.strip():
            continue
        try:
            record = _record(line)
        except (ValueError, RecursionError) as error:
            faults.append(f"line {number} {_reason(error)}")
            continue
        if record["epoch"] in records:
            faults.append(f"line {number} repeats epoch {record['epoch']}")
        records[record["epoch"]] = record
    return Found([records[epoch] for epoch in sorted(records)], faults)


def as_text(records: list[Record]) -> str:
    """``records`` in the format of :func:`read_records`."""
    return "".join(json.dumps(record) + "\n" for record in records)


class _NotWhole(ValueError):
    """The fault of a line."""


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, _NotWhole) else "is not JSON"


def _record(line: bytes) -> Record:
    """The record in a line; a ValueError if it has none."""
    record = json.loads(line.decode("utf-8-sig"))
    if not isinstance(record, dict):
        raise _NotWhole("is not an object")
    epoch = record.get("epoch")
    if not isinstance(epoch, int) or isinstance(epoch, bool) or not 0 <= epoch <= LARGEST_EPOCH:
        raise _NotWhole("has no epoch")
    seconds = record.get("seconds", {})
    if not isinstance(seconds, dict) or not all(map(_is_number, seconds.values())):
        raise _NotWhole("has seconds that are not numbers")
    for name, value in record.items():
        last = name.rpartition("/")[2]
        if (last in NUMBERS or last.startswith(RANK)) and value is not None and not _is_number(value):
            raise _NotWhole(f"has no number for {last}")
    return record


def _is_number(value: Any) -> bool:
    """Whether ``value`` is a usable number; an integer beyond the range of float64 is not."""
    if isinstance(value, float):
        return True
    return isinstance(value, int) and not isinstance(value, bool) and math.isfinite(_as_float(value))


def _as_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf
