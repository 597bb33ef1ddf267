"""Contrastive loss with sets of positives."""

from __future__ import annotations

import torch
from torch import Tensor

import ccfast
from benchmarks import differences
from benchmarks.case import Case
from benchmarks.peaks import Work
from ccfast.check import eager

SIZES = {
    "quick": [{"B": 64, "P": 2000}],
    "full": [{"B": B, "P": P} for B in (64, 256) for P in (3000, 10_000)],
}


def _inputs(B: int, P: int) -> tuple[Tensor, Tensor, Tensor]:
    """Proxies of 6 cameras, and the 50 most similar others, as in CAP and O2CAP."""
    logits = torch.randn(B, P, generator=torch.Generator().manual_seed(0)) * 4
    positives = torch.arange(P) // 6 == (torch.arange(B) % (P // 6))[:, None]
    hardest = logits.masked_fill(positives, -torch.inf).topk(50, dim=1).indices
    return logits.requires_grad_(), positives, positives.scatter(1, hardest, True)


def _work(B: int, P: int) -> Work:
    """Logits and masks read in each pass, the gradient written."""
    return Work(bytes=B * P * (4.0 * 3 + 2 * 2))


def _with_gradient(loss):
    def run(logits: Tensor, positives: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        losses = loss(logits, positives, keep)
        (gradient,) = torch.autograd.grad(losses.sum(), logits)
        return losses.detach(), gradient

    return run


def cases(preset: str) -> list[Case]:
    return [
        Case(
            op="sets",
            name="set_contrastive_loss",
            sizes=sizes,
            inputs=_inputs,
            providers={
                "ccfast": _with_gradient(ccfast.set_contrastive_loss),
                "reference": _with_gradient(ccfast.reference.set_contrastive_loss),
                "eager torch": _with_gradient(eager.set_contrastive_loss),
            },
            difference=differences.values,
            allowed=1e-5,
            work=_work,
            passes="forward + backward",
            growth=lambda B, P: float(B * P),
        )
        for sizes in SIZES[preset]
    ]


def test_sets(bench) -> None:
    bench()
