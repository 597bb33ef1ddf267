"""Sinkhorn-Knopp normalisation."""

from __future__ import annotations

import torch
from torch import Tensor

import ccfast
from benchmarks import differences
from benchmarks.case import Case
from benchmarks.peaks import Work
from ccfast.check import eager

ITERATIONS = 3
SIZES = {
    "quick": [{"B": 256, "K": 300}],
    "full": [{"B": 256, "K": 3000}, {"B": 4096, "K": 3000}],
}


def _inputs(B: int, K: int) -> tuple[Tensor]:
    return (torch.rand(B, K, generator=torch.Generator().manual_seed(0)) * 2 - 1,)


def _work(B: int, K: int) -> Work:
    """The scores read, the assignment written, and one pass over the exponentials per iteration."""
    return Work(bytes=4.0 * B * K * (2 + 1 + ITERATIONS))


def cases(preset: str) -> list[Case]:
    return [
        Case(
            op="sinkhorn",
            name="sinkhorn",
            sizes=sizes,
            inputs=_inputs,
            providers={
                "ccfast": ccfast.sinkhorn,
                "reference": ccfast.reference.sinkhorn,
                "eager torch": eager.sinkhorn,
            },
            difference=differences.values,
            allowed=2e-5,
            work=_work,
            growth=lambda B, K: float(B * K),
        )
        for sizes in SIZES[preset]
    ]


def test_sinkhorn(bench) -> None:
    bench()
