"""Result files: JSON, one row for each provider of a case, each with where and on what it was measured."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch

from benchmarks.case import Case
from benchmarks.measure import Timing

Row = dict[str, Any]

ROOT = Path(__file__).parent.parent
FOLDER = Path(__file__).parent / "results"
#: What makes two rows measurements of the same thing: the newer one stays.
KEY = ("op", "case", "provider", "pass", "dtype", "sizes")


def environment() -> Row:
    """Where and on what: part of every row."""
    return {
        "device": f"{_processor()}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": _commit(),
        "date": datetime.date.today().isoformat(),
    }


def rows_of(case: Case, timings: dict[str, Timing], facts: dict[str, float], where: Row) -> list[Row]:
    """The rows of one case."""
    return [
        {
            "op": case.op,
            "case": case.name,
            "provider": provider,
            "pass": case.passes,
            "dtype": case.dtype,
            "sizes": dict(case.sizes),
            "median_s": timing.quantile(0.5),
            "p20_s": timing.quantile(0.2),
            "p80_s": timing.quantile(0.8),
            "rounds": timing.plan.rounds,
            "iterations": timing.plan.iterations,
            "peak_memory_bytes": timing.first.peak_memory,
            "exactness": {"what": timing.first.difference.what, "value": timing.first.difference.value},
            "facts": facts,
            **where,
        }
        for provider, timing in timings.items()
    ]


def file_for(folder: Path, preset: str, where: Row) -> Path:
    """``<device>-<date>.json``, and ``<device>-<date>-quick.json`` for the quick sizes."""
    device = re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)", "", where["device"].lower())).strip("-")
    return folder / f"{device}-{where['date']}{'' if preset == 'full' else f'-{preset}'}.json"


def read(path: Path) -> list[Row]:
    return json.loads(path.read_text(encoding="utf-8"))


def add(path: Path, rows: list[Row]) -> None:
    """Write ``rows`` to ``path``, in the place of older ones of the same thing; the others there stay."""
    new = {_key(row) for row in rows}
    kept = [row for row in read(path) if _key(row) not in new] if path.exists() else []
    path.parent.mkdir(parents=True, exist_ok=True)
    text = ",\n".join(json.dumps(row) for row in [*kept, *rows])
    path.write_text(f"[\n{text}\n]\n", encoding="utf-8")


def newest(folder: Path = FOLDER) -> list[list[Row]]:
    """The newest file at full sizes of each device."""
    by_device: dict[str, list[Row]] = {}
    for path in sorted(folder.glob("*-????-??-??.json")):
        rows = read(path)
        by_device[rows[0]["device"]] = rows
    return list(by_device.values())


def _key(row: Row) -> str:
    return json.dumps([row[name] for name in KEY])


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1) if found else platform.processor() or platform.machine()


def _commit() -> str:
    """The commit, with a + where what is measured differs from it."""
    try:
        commit = _git("rev-parse", "--short=10", "HEAD")
        changed = _git("status", "--porcelain", "--", "ccfast", "csrc", "setup.py", "benchmarks/*.py")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+" if changed else "")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
