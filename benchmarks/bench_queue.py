"""A queue of rows: the ring of MoCo, and the shifted one of SwAV."""

from __future__ import annotations

import torch
from torch import Tensor

import ccfast
from benchmarks import differences
from benchmarks.case import Case
from benchmarks.peaks import Work
from ccfast.check import eager

SIZES = {"quick": {"B": 64, "K": 2048, "D": 128}, "full": {"B": 256, "K": 65536, "D": 128}}


def _inputs(B: int, K: int, D: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    queue, rows = torch.randn(K, D, generator=generator), torch.randn(B, D, generator=generator)
    return queue, torch.zeros(1, dtype=torch.int64), rows


def _ring(enqueue):
    def run(queue: Tensor, pointer: Tensor, rows: Tensor) -> Tensor:
        enqueue(queue, pointer, rows)
        return queue

    return run


def _front(enqueue):
    def run(queue: Tensor, pointer: Tensor, rows: Tensor) -> Tensor:
        enqueue(queue, None, rows)
        return queue

    return run


def cases(preset: str) -> list[Case]:
    kinds = {"ring": _ring, "front": _front}
    return [
        Case(
            op="queue",
            name=f"enqueue_ ({name})",
            sizes=SIZES[preset],
            inputs=_inputs,
            providers={
                "ccfast": run(ccfast.enqueue_),
                "reference": run(ccfast.reference.enqueue_),
                "eager torch": run(eager.enqueue_),
            },
            difference=differences.values,
            work=lambda B, K, D, name=name: Work(bytes=4.0 * D * 2 * (B if name == "ring" else K)),
            in_place=True,
        )
        for name, run in kinds.items()
    ]


def test_queue(bench) -> None:
    bench()
