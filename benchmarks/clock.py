"""Memory of a call, on a CPU or on a GPU; its seconds are those of ccfast.check.clock."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ccfast.check import clock
from ccfast.check.clock import seconds_of as seconds_of


def with_peak_memory(call: Callable[[], Any], device: torch.device) -> tuple[float, int | None, Any]:
    """Seconds, additional peak memory in bytes (with the result; None if Linux does not report it), and result."""
    before = _restart_peak(device)
    start = clock.now()
    result = call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds = clock.now() - start
    return seconds, None if before is None else max(0, _peak(device) - before), result


def free_memory(device: torch.device) -> float:
    """Bytes that a call may take."""
    if device.type == "cuda":
        unused_by_torch = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return torch.cuda.mem_get_info()[0] + unused_by_torch
    found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(found.group(1)) * 1024


@cache
def _load_libraries() -> None:
    """Load the matrix product's code and buffers, which stay in memory and are not counted for any provider."""
    matrix = torch.ones(2048, 2048)
    matrix @ matrix


def _restart_peak(device: torch.device) -> int | None:
    """Give unused memory back to the system, and let the high-water mark of resident memory start from here."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    _load_libraries()
    try:
        ctypes.CDLL(None).malloc_trim(0)  # otherwise the call would reuse memory from an earlier one
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")
    except (AttributeError, OSError):
        return None


def _peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else _status("VmHWM")


def _status(name: str) -> int:
    text = Path("/proc/self/status").read_text()
    return int(re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE).group(1)) * 1024
