"""The free memory of a device."""

from __future__ import annotations

import os
from pathlib import Path

import torch

#: Files of Linux with a container's memory limit, use and reclaimable memory: cgroup v2, then v1.
_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
    ),
)


def available(device: torch.device) -> int | None:
    """Free bytes on ``device``; None if the system does not report them."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    known = [room for room in (_of_machine(), _of_container()) if room is not None]
    return min(known, default=None)


def _of_machine() -> int | None:
    available_kib = _table("/proc/meminfo").get("MemAvailable:")
    if available_kib is not None:
        return available_kib * 1024
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on this system
        return None


def _of_container() -> int | None:
    for limit, usage, statistics in _CGROUPS:
        try:
            free = int(Path(limit).read_text()) - int(Path(usage).read_text())
        except (OSError, ValueError):  # no such file, or "max": no limit
            continue
        return free + _table(statistics).get("inactive_file", 0)  # files' pages that the kernel drops first
    return None


def _table(path: str) -> dict[str, int]:
    """Lines "name number ..." as a dict; empty if there is no such file."""
    try:
        lines = [line.split() for line in Path(path).read_text().splitlines()]
    except OSError:
        return {}
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}
