"""The modules of ccfast.nn on plain PyTorch: ccfast.check.eager or ccfast.reference replaces their ops."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ccfast import nn, reference
from ccfast.check import eager
from ccfast.reference.memory import _chosen

Ops = dict[str, Callable[..., Any]]


@contextmanager
def replaced(ops: Ops) -> Iterator[None]:
    """Inside this context the modules of ccfast.nn call these functions."""
    before = [(module, name, getattr(module, name)) for module, name in _PLACES if name in ops]
    for module, name, _ in before:
        setattr(module, name, ops[name])
    try:
        yield
    finally:
        for module, name, found in before:
            setattr(module, name, found)


class _Product(torch.autograd.Function):
    """The product of the authors' banks, which are updated in backward."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, memory: Tensor, on_backward: Callable[[Tensor], None] | None) -> Tensor:
        ctx.save_for_backward(features)
        ctx.memory, ctx.on_backward = memory, on_backward
        return features @ memory.T

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        gradient = upstream @ ctx.memory
        if ctx.on_backward is not None:
            ctx.on_backward(ctx.saved_tensors[0])
        return gradient, None, None


def _update(
    memory: Tensor, features: Tensor, labels: Tensor, momentum: float, mode: str, normalize: bool,
    *, reference: Tensor | None = None, groups: Tensor | None = None,
) -> None:  # fmt: skip
    """A loop over the clusters of the batch, and over their samples, as in the authors' code."""
    features = F.normalize(features, dim=1) if normalize else features
    for label in labels.unique().tolist():
        if label < 0:
            continue
        own = labels == label
        row = memory[label].clone()
        if mode == "replace":
            memory[label] = features[own][-1]
            continue
        measured = row if reference is None else reference[label]
        for x in _chosen(features[own], row, measured, mode, None if groups is None else groups[own]):
            row = F.normalize(momentum * row + (1 - momentum) * x, dim=0)
        memory[label] = row


def _update_of_reference(memory: Tensor, features: Tensor, labels: Tensor, momentum: float, mode: str, normalize: bool,
                         **extras: Any) -> None:  # fmt: skip
    features = F.normalize(features, dim=1) if normalize else features
    reference.update_memory_(memory, features, labels, momentum, mode, **extras)


def _product(features: Tensor, memory: Tensor, on_backward: Callable[[Tensor], None] | None = None) -> Tensor:
    return _Product.apply(features, memory, on_backward)


def _loss(features: Tensor, memory: Tensor, labels: Tensor, temperature: float) -> Tensor:
    return F.cross_entropy(F.normalize(features) @ memory.T / temperature, labels, ignore_index=-1)


#: By the names that the modules import.
EAGER: Ops = {
    "centroid_contrastive_loss": _loss,
    "enqueue_": eager.enqueue_,
    "memory_similarity": _product,
    "segment_mean": eager.segment_mean,
    "set_contrastive_loss": eager.set_contrastive_loss,
    "sinkhorn": eager.sinkhorn,
    "update_memory_from": _update,
}
REFERENCE: Ops = {name: getattr(reference, name) for name in EAGER if hasattr(reference, name)} | {
    "update_memory_from": _update_of_reference
}
_PLACES = [
    (module, name)
    for found in pkgutil.iter_modules(nn.__path__)
    for module in [importlib.import_module(f"ccfast.nn.{found.name}")]
    for name in EAGER
    if hasattr(module, name)
]
