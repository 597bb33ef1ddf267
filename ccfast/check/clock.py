"""Seconds of a call, on a CPU or on a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

#: The clock for seconds on a CPU.
now: Callable[[], float] = time.perf_counter


def use_processor_time() -> None:
    """Measure the processor time of this process from now on, for machines with other load."""
    global now
    now = time.process_time


def seconds_of(call: Callable[[], Any], device: torch.device, iterations: int = 1, queued: bool = False) -> float:
    """Mean seconds of a call.

    On a GPU it is measured between two events, with other data in the L2 cache before each call. The GPU is idle before
    each call, so launch latency counts; if the call is ``queued``, only the GPU's own time counts.
    """
    if device.type == "cuda":
        return sum(_seconds_by_events(call, queued) for _ in range(iterations)) / iterations
    start = now()
    for _ in range(iterations):
        call()
    return (now() - start) / iterations


def _seconds_by_events(call: Callable[[], Any], queued: bool) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    # Read, not written: dirty lines would be written back during the call. A queued call is launched while this runs.
    more_than_l2(torch.cuda.current_device()).sum()
    if not queued:
        torch.cuda.synchronize()
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


@cache
def more_than_l2(device: int) -> torch.Tensor:
    """Four times the L2 cache of a GPU, in bytes."""
    size = torch.cuda.get_device_properties(device).L2_cache_size
    return torch.zeros(4 * size, dtype=torch.uint8, device=f"cuda:{device}").view(torch.int32)
