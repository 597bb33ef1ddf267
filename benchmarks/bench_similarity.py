"""Similarities to a bank, and their means by label."""

from __future__ import annotations

import torch
from torch import Tensor

import ccfast
from benchmarks import differences, plain
from benchmarks.case import Case
from benchmarks.inputs import clustered_features, memory_batch
from benchmarks.peaks import Work
from ccfast.check import eager

SIZES = {
    "quick": [{"B": 64, "N": 2000, "C": 400}],
    "full": [{"B": B, "N": 12936, "C": C} for B in (64, 256) for C in (700, 5000)],
}
PRODUCTS = {
    "quick": [{"B": 64, "D": 256, "C": 200}],
    "full": [{"B": 256, "D": 2048, "C": C} for C in (751, 12_936)],
}
DIM = 128


def _similarities(B: int, N: int, C: int) -> tuple[Tensor, Tensor, int]:
    features = clustered_features(N, DIM)
    labels = torch.randint(C, (N,), generator=torch.Generator().manual_seed(0))
    return (features[:B] @ features.T / 0.05).requires_grad_(), labels, C


def _work(B: int, N: int, C: int) -> Work:
    """The similarities read, their gradient written; the means written, theirs read."""
    return Work(bytes=4.0 * B * (2 * N + 2 * C))


def _step_of_a_bank(B: int, D: int, C: int) -> tuple[Tensor, Tensor, Tensor]:
    memory, features, labels = memory_batch(B, D, C)
    return memory, features.requires_grad_(), labels


def _moved(product):
    """Both passes, and the update that the backward pass makes."""

    def run(memory: Tensor, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        similarity = product(features, memory, lambda x: ccfast.update_memory_(memory, x, labels))
        (gradient,) = torch.autograd.grad(similarity.logsumexp(1).sum(), features)
        return similarity.detach(), gradient, memory

    return run


def _with_gradient(mean):
    def run(similarities: Tensor, labels: Tensor, segments: int) -> tuple[Tensor, Tensor]:
        means = mean(similarities, labels, segments)[0]
        (gradient,) = torch.autograd.grad(means, similarities, torch.ones_like(means))
        return means.detach(), gradient

    return run


def cases(preset: str) -> list[Case]:
    products = {
        "ccfast": ccfast.memory_similarity,
        "reference": ccfast.reference.memory_similarity,
        "eager torch": plain.EAGER["memory_similarity"],
    }
    return [
        *(
            Case(
                op="similarity",
                name="memory_similarity",
                sizes=sizes,
                inputs=_step_of_a_bank,
                providers={name: _moved(product) for name, product in products.items()},
                difference=differences.values,
                allowed=1e-5,
                work=lambda B, D, C: Work(bytes=4.0 * D * (C + 2 * B), flops=4.0 * B * D * C),
                passes="forward + backward + update",
                growth=lambda B, D, C: float(B) * C,
                in_place=True,
            )
            for sizes in PRODUCTS[preset]
        ),
        *_mean_cases(preset),
    ]


def _mean_cases(preset: str) -> list[Case]:
    return [
        Case(
            op="similarity",
            name="segment_mean",
            sizes=sizes,
            inputs=_similarities,
            providers={
                "ccfast": _with_gradient(ccfast.segment_mean),
                "reference": _with_gradient(ccfast.reference.segment_mean),
                "eager torch": _with_gradient(eager.segment_mean),
            },
            difference=differences.values,
            allowed=1e-4,
            work=_work,
            passes="forward + backward",
            growth=lambda B, N, C: float(B * N),
        )
        for sizes in SIZES[preset]
    ]


def test_similarity(bench) -> None:
    bench()
