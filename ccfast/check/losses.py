"""Losses with their gradients, and Sinkhorn's assignments."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import ccfast
from ccfast.check import eager
from ccfast.check.inputs import memory_batch, signs
from ccfast.check.memories import training_step
from ccfast.check.speed import Size, Speed
from ccfast.check.trial import Trial, short

SINGLE, DOUBLE = 2e-5, 1e-10
#: Proxies of a camera method; prototypes of SwAV.
PROXIES, PROTOTYPES = 3000, 3000


def trials() -> Iterator[Trial]:
    """All of the family."""
    yield from _losses()
    yield from _losses_with_extras()
    yield from _set_losses()
    for dtype, allowed in ((torch.float32, SINGLE), (torch.float64, DOUBLE), (torch.float16, SINGLE)):
        for iterations in (0, 1, 3):
            scores = (memory_batch(37, 53, 41, dtype=torch.float64)[0] * 2).to(dtype)
            title = f"{short(dtype)}, iterations={iterations}"
            yield Trial("sinkhorn", title, _assign(iterations), (scores,), allowed, graph=True)
    yield Trial("sinkhorn", "ties", _assign(3), (signs(41),), SINGLE, graph=True)


def speeds(size: Size) -> list[Speed]:
    """All of the family."""
    sizes = f"B={size.batch} D={size.dim:,} C={size.identities}, both passes"

    def step(device: torch.device) -> tuple[Tensor, ...]:
        return training_step(size, device)

    def proxies(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        return tuple(value.to(device) for value in proxies_of_cameras(size.batch, PROXIES))

    def scores(device: torch.device) -> tuple[Tensor]:
        values = torch.rand(size.batch, PROTOTYPES, generator=torch.Generator().manual_seed(0)) * 2 - 1
        return (values.to(device),)

    return [
        Speed(
            "centroid_contrastive_loss", sizes, step,
            _both_passes(lambda x, m, y: ccfast.centroid_contrastive_loss(x, m, y)),
            _both_passes(eager.centroid_contrastive_loss),
        ),
        Speed(
            "set_contrastive_loss", f"B={size.batch} P={PROXIES:,}, both passes", proxies,
            _set_loss_passes(ccfast.set_contrastive_loss), _set_loss_passes(eager.set_contrastive_loss),
        ),
        Speed("sinkhorn", f"B={size.batch} K={PROTOTYPES:,}", scores, ccfast.sinkhorn, eager.sinkhorn),
    ]  # fmt: skip


def proxies_of_cameras(rows: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits to the proxies of 6 cameras, the positives, and these with the 50 most similar others (CAP)."""
    logits = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)) * 4
    positives = torch.arange(columns) // 6 == (torch.arange(rows) % (columns // 6))[:, None]
    hardest = logits.masked_fill(positives, -torch.inf).topk(min(50, columns - 6), dim=1).indices
    return logits, positives, positives.scatter(1, hardest, True)


def _both_passes(loss: Callable[..., Tensor]) -> Callable[..., Any]:
    def call(memory: Tensor, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        features = features.detach().requires_grad_()
        value = loss(features, memory, labels)
        return value, torch.autograd.grad(value, features)[0]

    return call


def _set_loss_passes(loss: Callable[..., Tensor]) -> Callable[..., Any]:
    def call(logits: Tensor, positives: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        logits = logits.detach().requires_grad_()
        losses = loss(logits, positives, keep)
        return losses, torch.autograd.grad(losses.sum(), logits)[0]

    return call


def _loss(**options: Any) -> Callable[..., Any]:
    """Loss and both gradients; ``extras`` are the mask, the weights of the rows and the temperatures, in this order."""

    def call(package: ModuleType, features: Tensor, memory: Tensor, labels: Tensor, *extras: Tensor) -> tuple[Any, ...]:
        given = dict(zip(("mask", "weights", "temperature"), extras, strict=False))
        features, memory = (value.detach().requires_grad_() for value in (features, memory))
        loss = package.centroid_contrastive_loss(features, memory, labels, **options, **given)
        upstream = torch.linspace(0.5, 2, loss.numel(), device=loss.device, dtype=loss.dtype).reshape(loss.shape)
        return loss, *torch.autograd.grad(loss, (features, memory), upstream)

    return call


def _losses() -> Iterator[Trial]:
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        memory, features, labels = memory_batch(13, 37, 29, torch.float64)
        given = ((2 * features).to(dtype), memory.to(dtype), labels)
        allowed = DOUBLE if dtype is torch.float64 else SINGLE
        for reduction, normalize, smoothing in itertools.product(("mean", "sum", "none"), (True, False), (0.0, 0.1)):
            title = f"{short(dtype)}, {reduction}, normalize={normalize}, smoothing={smoothing}"
            options = {"reduction": reduction, "normalize": normalize, "label_smoothing": smoothing}
            call = _loss(**options, temperature=0.3)
            yield Trial("centroid_contrastive_loss", title, call, given, allowed, graph=True)
    for clusters, dim, batch in ((1, 1, 1), (5, 3, 1), (1000, 17, 33), (9, 2048, 3), (6, 4101, 2), (257, 129, 131)):
        memory, features, labels = memory_batch(clusters, dim, batch)
        title = f"B={batch} D={dim} C={clusters}"
        given = (features, memory, labels)
        yield Trial("centroid_contrastive_loss", title, _loss(temperature=0.3), given, SINGLE, graph=True)
    memory, features, _ = memory_batch()
    noise = torch.full((len(features),), -1)
    yield Trial("centroid_contrastive_loss", "noise alone", _loss(), (features, memory, noise), SINGLE, graph=True)
    ties = (signs(29), signs(13, seed=1), torch.arange(29) % 13)
    yield Trial("centroid_contrastive_loss", "ties", _loss(), ties, SINGLE, graph=True)


def _losses_with_extras() -> Iterator[Trial]:
    for dtype, allowed in ((torch.float32, SINGLE), (torch.float64, DOUBLE)):
        memory, features, labels = memory_batch(13, 37, 29, dtype)
        generator = torch.Generator().manual_seed(0)
        mask = torch.rand(29, 13, generator=generator) < 0.5
        mask[torch.arange(29), labels.clamp_min(0)] = True
        weights, temperatures = torch.rand(29, generator=generator), 0.05 + torch.rand(13, generator=generator)
        soft = (F.one_hot(labels.clamp_min(0), 13) * 0.7 + 0.3 * mask / mask.sum(1, keepdim=True)).to(dtype)
        for name, targets in (("labels", labels), ("targets", soft)):
            title = f"{short(dtype)}, {name}, mask, weights, temperatures"
            given = (features, memory, targets, mask, weights.to(dtype), temperatures.to(dtype))
            for smoothing in (0.0, 0.1):
                call = _loss(label_smoothing=smoothing)
                yield Trial(
                    "centroid_contrastive_loss", f"{title}, smoothing={smoothing}", call, given, allowed, graph=True
                )


def _set_losses() -> Iterator[Trial]:
    for dtype, allowed in ((torch.float32, SINGLE), (torch.float64, DOUBLE), (torch.bfloat16, SINGLE)):
        for rows, columns in ((1, 1), (7, 53), (3, 1501)):
            generator = torch.Generator().manual_seed(rows)
            logits = (8 * torch.randn(rows, columns, generator=generator, dtype=torch.float64)).to(dtype)
            positives = torch.rand(rows, columns, generator=generator) < 0.2
            keep = torch.rand(rows, columns, generator=generator) < 0.6
            times = torch.randint(4, (rows, columns), generator=generator)
            for which, extras in enumerate(((None, None), (keep, None), (None, times), (keep, times))):
                name = ("", ", keep", ", multiplicity", ", keep and multiplicity")[which]
                title = f"{short(dtype)}, B={rows} P={columns}{name}"
                given = (logits, positives, *extras)
                yield Trial("set_contrastive_loss", title, _set_loss, given, allowed, graph=True)
    ties = (signs(19), torch.eye(19, 16) > 0, None, None)
    yield Trial("set_contrastive_loss", "ties, rows without a positive", _set_loss, ties, SINGLE, graph=True)


def _set_loss(package: ModuleType, logits: Tensor, positives: Tensor, keep: Any, multiplicity: Any) -> tuple[Any, ...]:
    logits = logits.detach().requires_grad_()
    losses = package.set_contrastive_loss(logits, positives, keep, multiplicity=multiplicity)
    upstream = torch.linspace(0.5, 2, len(losses), device=losses.device, dtype=losses.dtype)
    return losses, *torch.autograd.grad(losses, logits, upstream)


def _assign(iterations: int) -> Callable[..., Tensor]:
    return lambda package, scores: package.sinkhorn(scores, iterations=iterations)
