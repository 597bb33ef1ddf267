"""The peak rates of this machine, measured at the start of a run, and the lower bound on time that they give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.clock import seconds_of

#: Rows and columns of the products, and bytes of the copy, on a CPU and on a GPU.
SIDE = {"cpu": 2048, "cuda": 8192}
COPIED = {"cpu": 1 << 28, "cuda": 1 << 31}
ROUNDS = 5
#: Types of the products. float16 has tensor cores on a GPU and nothing on most CPUs.
TYPES = {
    "cpu": (torch.float32, torch.bfloat16),
    "cuda": (torch.float32, torch.bfloat16, torch.float16),
}


@dataclass(frozen=True)
class Work:
    """The least work for a result: operations in matrix products, their type, and bytes read and written."""

    bytes: float
    flops: float = 0
    product: str = "float32"


@dataclass(frozen=True)
class Peaks:
    """Best of a few rounds.

    Attributes:
        products: FLOP/s of square matrix products, by type.
        copy: bytes/s read and written by a copy.
    """

    products: dict[str, float]
    copy: float

    def floor(self, work: Work) -> float:
        """A lower bound on the seconds of the work."""
        return max(work.flops / self.products[work.product], work.bytes / self.copy)

    def bound(self, work: Work) -> str:
        """What sets the floor: ``products`` or ``memory``."""
        return "products" if work.flops / self.products[work.product] > work.bytes / self.copy else "memory"

    def as_facts(self) -> dict[str, float]:
        """For the result file."""
        rates = {f"{name} products, GFLOP/s": round(rate / 1e9, 1) for name, rate in self.products.items()}
        return {**rates, "copy, GB/s": round(self.copy / 1e9, 1)}


def measure_peaks(device: torch.device) -> Peaks:
    """Measure both on the device of the benchmarks; float32 products with torch's current settings."""
    side = SIDE[device.type]
    products = {}
    for dtype in TYPES[device.type]:
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        products[str(dtype).removeprefix("torch.")] = 2 * side**3 / _best(lambda a=a, b=b: a @ b.T, device)
    source = torch.ones(COPIED[device.type] // 4, device=device)
    target = torch.empty_like(source)
    return Peaks(products, 2 * COPIED[device.type] / _best(lambda: target.copy_(source), device))


def _best(call: Callable[[], object], device: torch.device) -> float:
    call()
    return min(seconds_of(call, device) for _ in range(ROUNDS))
