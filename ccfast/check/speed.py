"""The times of an op and of eager PyTorch at a real size, after their results have been compared."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ccfast.check.clock import seconds_of
from ccfast.check.trial import copied, tensors_of

#: This share of the entries of an answer may differ by more than :data:`OFF` times the largest entry: products in
#: float32 order near ties among neighbours differently, and later results follow from that order.
MOST_OFF, OFF = 0.02, 1e-3
#: Seconds of timing for each of the two; calls that take longer than SLOW are timed once.
BUDGET, SLOW = 0.3, 1.0
#: On a CPU, a round repeats a fast call for at least this time, so that reading the clock hardly counts.
ROUND = 5e-3


@dataclass(frozen=True)
class Size:
    """The sizes of the timings' inputs: images, dimensions, images per batch, identities."""

    images: int
    dim: int
    batch: int
    identities: int


#: Market-1501: its training set on a GPU; as many images as it has queries on a CPU.
REAL = {"cuda": Size(12_936, 2048, 256, 751), "cpu": Size(3368, 2048, 256, 751)}


@dataclass(frozen=True)
class Speed:
    """A timing.

    Attributes:
        op: the op's name.
        sizes: of its inputs, for the table.
        inputs: builds them on a device.
        ours: the op, called with the inputs.
        eager: the same in eager PyTorch, or None.
    """

    op: str
    sizes: str
    inputs: Callable[[torch.device], tuple[Any, ...]]
    ours: Callable[..., Any]
    eager: Callable[..., Any] | None


@dataclass(frozen=True)
class Times:
    """Seconds of both (None: not timed), the share of entries that differ, and why something is missing."""

    sizes: str
    ours: float | None = None
    eager: float | None = None
    off: float = 0.0
    note: str = ""


def time_speed(speed: Speed, device: torch.device) -> Times:
    """Time both, in this order; if memory is too small for eager PyTorch, only the op."""
    inputs = speed.inputs(device)
    found, ours = _timed(speed.ours, inputs, device)
    if speed.eager is None:
        return Times(speed.sizes, ours, note="nothing in eager PyTorch to compare with")
    try:
        want, eager = _timed(speed.eager, inputs, device)
    except torch.OutOfMemoryError:
        return Times(speed.sizes, ours, note="out of memory in eager PyTorch")
    return Times(speed.sizes, ours, eager, max(map(_share_off, found, want)))


def _share_off(found: torch.Tensor, want: torch.Tensor) -> float:
    if found.shape != want.shape:
        return math.inf
    found, want = found.float(), want.to(found.device, torch.float32)
    scale = float(want.abs().max()) or 1.0
    return float(((found - want).abs() > OFF * scale).double().mean())


def _timed(
    function: Callable[..., Any], inputs: tuple[Any, ...], device: torch.device
) -> tuple[list[torch.Tensor], float]:
    """The answer of a first call on its own copy of the inputs, and the median seconds of the calls after it.

    What is slow on a CPU is not called again.
    """
    own, answers = copied(inputs, device), []
    first = seconds_of(lambda: answers.append(function(*own)), device)
    answer = [value.clone() for value in tensors_of(answers.pop())]  # later calls may change what it is part of
    if first > SLOW and device.type == "cpu":
        return answer, first
    iterations = 1 if device.type == "cuda" else max(1, math.ceil(ROUND / first))
    rounds = min(max(3, int(BUDGET / (first * iterations))), 50)
    return answer, statistics.median(seconds_of(lambda: function(*own), device, iterations) for _ in range(rounds))
