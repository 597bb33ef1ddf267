"""The centroid contrastive loss, forward and backward."""

from __future__ import annotations

import torch
import torch.nn.functional as F

import ccfast
from benchmarks import differences, inputs, peers, peers_cuda
from benchmarks.case import Case
from benchmarks.inputs import memory_batch
from benchmarks.peaks import Work
from ccfast.check import eager

SIZES = {
    "quick": [{"B": 64, "D": 256, "C": 200}],
    "full": sorted(
        ({"B": B, "D": 2048, "C": C} for B in (64, 256, 1024, 4096) for C in (500, 3000, 10_000, 100_000)),
        key=lambda sizes: sizes["B"] * sizes["C"],
    ),
}
EXTRAS = {"quick": SIZES["quick"], "full": [{"B": 256, "D": 2048, "C": C} for C in (500, 3000, 10_000)]}
HALF = "cut-cross-entropy, bf16"
#: Why a provider cannot be captured in a CUDA graph.
WAIT = {
    "reference": "it checks its input on the host",
    "Liger": "it counts the targets on the host",
    HALF: "it looks on the host for targets to leave out",
}


def work(B: int, D: int, C: int) -> Work:
    """Products with the memory, forward and backward; memory, features and gradient once."""
    return Work(bytes=4.0 * D * (C + 2 * B), flops=4.0 * B * D * C)


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


def _with_extras(loss):
    """Loss and gradient with targets, a mask, weights of the rows and a temperature per column."""

    def run(features, memory, targets, temperature, mask, weights):
        features.grad = None
        value = loss(features, memory, targets, temperature, mask=mask, weights=weights)
        value.backward()
        return value.detach(), features.grad

    return run


def _extras(B: int, D: int, C: int) -> tuple:
    features, memory, labels = _inputs(B, D, C)
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(B, C, generator=generator) < 0.5
    mask[torch.arange(B), labels.clamp_min(0)] = True
    targets = F.one_hot(labels.clamp_min(0), C) * 0.9 + 0.1 * mask / mask.sum(1, keepdim=True)
    weights, temperature = torch.rand(B, generator=generator), 0.05 + 0.1 * torch.rand(C, generator=generator)
    return features, memory, targets, temperature, mask, weights


def _eager_with_extras(features, memory, targets, temperature, mask, weights):
    logits = F.normalize(features, dim=1) @ memory.T / temperature
    logits = logits.masked_fill(~mask, torch.finfo(logits.dtype).min)
    return (weights * F.cross_entropy(logits, targets.to(logits), reduction="none")).mean()


def _in_float64(features, memory, labels):
    """The truth: torch's own ops in float64."""
    features = features.detach().double().requires_grad_()
    return _forward_and_backward(eager.centroid_contrastive_loss)(features, memory.double(), labels)


def cases(preset: str) -> list[Case]:
    losses = {
        "ccfast": ccfast.centroid_contrastive_loss,
        "reference": ccfast.reference.centroid_contrastive_loss,
        "eager torch": eager.centroid_contrastive_loss,
        "torch.compile": peers.loss_compiled,
    }
    missing = {}
    if reason := peers.missing_linear_cross_entropy():
        missing["linear_cross_entropy"] = reason
    else:
        losses["linear_cross_entropy"] = peers.linear_cross_entropy
        losses["linear_cross_entropy, chunked"] = peers.linear_cross_entropy_chunked
    if inputs.on_cuda():
        fused, not_installed = peers_cuda.losses()
        losses |= fused
        missing |= not_installed
    plain = [
        Case(
            op="contrastive",
            name="centroid_contrastive_loss",
            sizes=sizes,
            inputs=_inputs,
            providers={name: _forward_and_backward(loss) for name, loss in losses.items()},
            difference=differences.values,
            allowed=1e-5,
            allowed_to={HALF: 0.05},
            difference_of={HALF: differences.relative},
            truth=_in_float64,
            warm_up=frozenset({"torch.compile", "Liger", HALF}),
            work=work,
            inputs_bytes=lambda B, D, C: 4.0 * D * (B + C),
            growth=lambda B, D, C: float(B) * D * C,
            missing=missing,
            passes="forward + backward",
            graph=True,
            uncapturable=WAIT,
        )
        for sizes in SIZES[preset]
    ]
    return [*plain, *map(_case_with_extras, EXTRAS[preset])]


def _case_with_extras(sizes: dict) -> Case:
    losses = {
        "ccfast": ccfast.centroid_contrastive_loss,
        "reference": ccfast.reference.centroid_contrastive_loss,
        "eager torch": _eager_with_extras,
    }
    return Case(
        op="contrastive",
        name="centroid_contrastive_loss (targets, mask, weights, temperatures)",
        sizes=sizes,
        inputs=_extras,
        providers={name: _with_extras(loss) for name, loss in losses.items()},
        difference=differences.values,
        allowed=1e-5,
        work=work,
        inputs_bytes=lambda B, D, C: 4.0 * D * (B + C) + 6.0 * B * C,
        growth=lambda B, D, C: float(B) * D * C,
        passes="forward + backward",
    )


def test_contrastive(bench) -> None:
    bench()
