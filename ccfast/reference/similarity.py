"""Similarities to a bank that is updated in backward, and their means by label."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ccfast import _arguments as arguments
from ccfast import _checks as checks


def memory_similarity(features: Any, memory: Any, on_backward: Callable[[Tensor], None] | None = None) -> Tensor:
    """See :func:`ccfast.memory_similarity`."""
    features, memory = arguments.memory_similarity(features, memory, on_backward)
    with torch.autocast(features.device.type, enabled=False):
        return _Similarity.apply(features, memory, on_backward)


class _Similarity(torch.autograd.Function):
    """Like the authors' banks: forward ``x @ M.T``; backward ``g @ M`` with the current M, then the update."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, memory: Tensor, on_backward: Callable[[Tensor], None] | None) -> Tensor:
        ctx.features, ctx.memory, ctx.on_backward = features.detach(), memory, on_backward
        return features @ memory.to(features.dtype).T

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor | None, None]:
        by_features = upstream @ ctx.memory.to(upstream.dtype)
        by_memory = (upstream.T @ ctx.features).to(ctx.memory.dtype) if ctx.needs_input_grad[1] else None
        if ctx.on_backward is not None:
            ctx.on_backward(ctx.features)
        return by_features, by_memory, None


def segment_mean(similarities: Any, labels: Any, num_segments: int) -> tuple[Tensor, Tensor]:
    """See :func:`ccfast.segment_mean`. A product with the membership matrix, divided by the count of each label."""
    similarities, labels, num_segments = arguments.segment_mean(similarities, labels, num_segments)
    checks.labels_in_range("labels", labels, num_segments)
    member = labels[:, None] == torch.arange(num_segments, device=labels.device)
    counts = member.sum(0)
    means = similarities.double() @ member.double() / counts.clamp_min(1)
    return means.to(similarities.dtype), counts > 0
