"""The counts that are kept in the repository, and what has changed since."""

from __future__ import annotations

from . import build

FILE = build.ROOT / "benchmarks" / "results" / "ptx_counters.json"
ROWS = 256
