"""Result files: JSON, one row per provider of a case, with the machine and the software of the measurement."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.attempts import EAGER
from benchmarks.case import Case
from benchmarks.measure import Measured, Timing
from benchmarks.peaks import Peaks
from ccfast._commit import commit
from ccfast.check import clock

Row = dict[str, Any]

ROOT = Path(__file__).parent.parent
FOLDER = Path(__file__).parent / "results"
#: Two rows with equal values of these measure the same thing; the newer one is kept.
KEY = ("op", "case", "provider", "pass", "mode", "dtype", "sizes")


def environment(device: torch.device, peaks: Peaks) -> Row:
    """The machine and its peaks, a part of every row."""
    return {**machine(device), "peaks": peaks.as_facts()}


def machine(device: torch.device) -> Row:
    """The processor and its load, the software, the commit and the day."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{_processor()}, {os.cpu_count()} cores"
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "timing": _timing() if device.type == "cuda" else _cpu_timing(),
        "python": platform.python_version(),
        "commit": commit(),
        "date": datetime.date.today().isoformat(),
    }


def rows_of(case: Case, measured: Measured, peaks: Peaks, origin: Row) -> list[Row]:
    """The rows of one case: those that were measured, and those that were left out with the reason."""
    common = {"op": case.op, "case": case.name, "pass": case.passes, "dtype": case.dtype, "sizes": dict(case.sizes)}
    floor = _floor(case, peaks)
    rows = [
        {**common, **cell._asdict(), **_numbers(timing, floor), **floor, "facts": dict(measured.facts), **origin}
        for cell, timing in measured.timings.items()
    ]
    return rows + [
        {**common, **cell._asdict(), "left_out": reason, **floor, **origin}
        for cell, reason in measured.left_out.items()
    ]


def _cpu_timing() -> str:
    return "wall clock" if clock.now is time.perf_counter else "processor time"


def _timing() -> str:
    tf32 = "off" if torch.get_float32_matmul_precision() == "highest" else "on"
    return f"device time between events, other data in the L2 cache before each call, TF32 {tf32}"


def _floor(case: Case, peaks: Peaks) -> Row:
    if case.work is None:
        return {}
    work = case.work(**case.sizes)
    return {
        "floor_s": peaks.floor(work),
        "floor_by": peaks.bound(work),
        "floor_product": work.product,
        "flops": work.flops,
        "bytes": work.bytes,
    }


def _numbers(timing: Timing, floor: Row) -> Row:
    median = timing.quantile(0.5)
    numbers = {
        "median_s": median,
        "p20_s": timing.quantile(0.2),
        "p80_s": timing.quantile(0.8),
        "rounds": timing.plan.rounds,
        "iterations": timing.plan.iterations,
        "peak_memory_bytes": timing.first.peak_memory,
        "exactness": _exactness(timing),
    }
    if floor:
        products = floor["floor_by"] == "products"
        numbers["rate"] = (floor["flops"] if products else floor["bytes"]) / median / 1e9
        numbers["rate_unit"] = "GFLOP/s" if products else "GB/s"
        numbers["share_of_floor"] = floor["floor_s"] / median
    return numbers


def _exactness(timing: Timing) -> Row:
    difference = timing.first.difference
    if difference is None:
        return {"what": "not compared: nothing to compare with at this size", "value": None}
    return {"what": difference.what, "value": difference.value}


def file_for(folder: Path, preset: str, origin: Row) -> Path:
    """``<device>-<date>.json``, and ``<device>-<date>-quick.json`` for the quick sizes."""
    device = re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)", "", origin["device"].lower())).strip("-")
    return folder / f"{device}-{origin['date']}{'' if preset == 'full' else f'-{preset}'}.json"


def read(path: Path) -> list[Row]:
    """The rows; those without a mode were timed by calls."""
    return [{"mode": EAGER, **row} for row in json.loads(path.read_text(encoding="utf-8"))]


def add(path: Path, rows: list[Row]) -> None:
    """Write ``rows`` to ``path``; they replace older rows of the same thing, and the others are kept."""
    new = {_key(row) for row in rows}
    kept = [row for row in read(path) if _key(row) not in new] if path.exists() else []
    path.parent.mkdir(parents=True, exist_ok=True)
    text = ",\n".join(json.dumps(row) for row in [*kept, *rows])
    unfinished = path.with_suffix(".unfinished")  # a run may be stopped at any time
    unfinished.write_text(f"[\n{text}\n]\n", encoding="utf-8")
    unfinished.replace(path)


def newest(folder: Path = FOLDER) -> list[tuple[Path, list[Row]]]:
    """The newest file at full sizes of each device, and its rows."""
    by_device: dict[str, tuple[Path, list[Row]]] = {}
    for path in sorted(folder.glob("*-????-??-??.json")):
        rows = read(path)
        by_device[rows[0]["device"]] = (path, rows)
    return list(by_device.values())


def _key(row: Row) -> str:
    return json.dumps([row[name] for name in KEY])


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1) if found else platform.processor() or platform.machine()
