"""The centroid contrastive loss, forward and backward."""

from __future__ import annotations

import ccfast
from benchmarks import differences, peers
from benchmarks.case import Case
from benchmarks.inputs import memory_batch

SIZES = {
    "quick": [{"B": 64, "D": 256, "C": 200}],
    "full": [{"B": 256, "D": 2048, "C": 500}, {"B": 256, "D": 2048, "C": 3000}],
}


def _inputs(B: int, D: int, C: int) -> tuple:
    memory, features, labels = memory_batch(B, D, C)
    return features.requires_grad_(), memory, labels


def _forward_and_backward(loss):
    """Loss and gradient."""

    def run(features, memory, labels):
        features.grad = None
        value = loss(features, memory, labels)
        value.backward()
        return value.detach(), features.grad

    return run


def cases(preset: str) -> list[Case]:
    return [
        Case(
            op="contrastive",
            name="centroid_contrastive_loss",
            sizes=sizes,
            inputs=_inputs,
            providers={
                "ccfast": _forward_and_backward(ccfast.centroid_contrastive_loss),
                "reference": _forward_and_backward(ccfast.reference.centroid_contrastive_loss),
                "eager torch": _forward_and_backward(peers.loss_in_eager_torch),
            },
            difference=differences.values,
            allowed=1e-5,
            passes="forward + backward",
        )
        for sizes in SIZES[preset]
    ]


def test_contrastive(bench) -> None:
    bench()
