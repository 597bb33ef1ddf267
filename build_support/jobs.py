"""How many compile jobs at a time this process has cores and memory for."""

from __future__ import annotations

import os
from pathlib import Path

BYTES_PER_JOB = 2 << 30
# Limit, usage, and what of the usage are cached files that are given back on demand: of control groups 2 and 1.
MEMORY_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
CGROUPS = Path("/sys/fs/cgroup")


def _numbers(path: Path) -> list[int] | None:
    """The numbers in a control file; None where it is missing or says "max"."""
    try:
        return [int(word) for word in path.read_text().split()]
    except (OSError, ValueError):
        return None


def _statistic(path: Path, name: str) -> int:
    """One line of a file of names and numbers; 0 where it is missing."""
    try:
        return sum(int(line.split()[1]) for line in path.read_text().splitlines() if line.split()[0] == name)
    except (OSError, ValueError, IndexError):
        return 0


def _own_groups(controller: str) -> list[Path]:
    """The folders of this process's control groups, of both versions, from its own to the root."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = CGROUPS / controllers if controllers else CGROUPS
        own = root / path.lstrip("/")
        folders += [folder for folder in (own, *own.parents) if folder.is_relative_to(root)]
    return folders


def cores() -> float:
    """Cores that this process may use: its affinity, and what its control groups grant."""
    count = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    for group in _own_groups("cpu"):
        granted = _numbers(group / "cpu.max")
        if granted is None:
            quota, period = _numbers(group / "cpu.cfs_quota_us"), _numbers(group / "cpu.cfs_period_us")
            granted = [*quota, *period] if quota and period else None
        if granted and granted[0] > 0:
            count = min(count, granted[0] / granted[1])
    return count


def free_memory() -> int | None:
    """Bytes that this process can still have; None where nothing tells."""
    free = []
    try:
        text = Path("/proc/meminfo").read_text()
        free += [int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("MemAvailable:")]
    except OSError:
        pass
    for group in _own_groups("memory"):
        for limit_name, usage_name, cached_name in MEMORY_FILES:
            limit, usage = _numbers(group / limit_name), _numbers(group / usage_name)
            if limit and usage:
                free.append(limit[0] - usage[0] + _statistic(group / "memory.stat", cached_name))
    return min(free, default=None)


def compile_jobs() -> int:
    """One job per core, and 2 GB of memory for each; at least one."""
    memory = free_memory()
    by_memory = cores() if memory is None else memory // BYTES_PER_JOB
    return max(1, int(min(cores(), by_memory)))
