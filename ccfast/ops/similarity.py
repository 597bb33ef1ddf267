"""Similarities to a bank that moves when their gradient is asked for, and their means by label."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ccfast import _checks as checks

#: Called in backward with the features of the forward pass, ``[B, D]``, detached and in the dtype of the product.
OnBackward = Callable[[Tensor], None]


def memory_similarity(features: Any, memory: Any, on_backward: OnBackward | None = None) -> Tensor:
    """Inner products ``features @ memory.T``, and a bank that moves in backward.

    The banks of the authors' code are autograd functions whose backward pass moves them. Backward here first computes
    ``upstream @ memory`` with the rows that ``memory`` holds at that moment, and then calls ``on_backward``, which may
    change them: so each backward through this product is one update, two products before one backward see the same
    rows, and the one that was computed first gets its gradient from rows that the other one has moved. Without a
    backward pass (under ``no_grad``, for features that need no gradient) nothing moves.

    Args:
        features: ``[B, D]`` float16, bfloat16, float32 or float64. Computed in float64 for float64, else in float32,
            under autocast too.
        memory: ``[C, D]`` of the same dtypes, used as it is. It is not copied, and may change before backward.
        on_backward: called as ``on_backward(features)`` in every backward pass, after the gradient; ``features`` are
            those of the forward pass, detached, in the dtype of the product.

    Returns:
        ``[B, C]``. The gradient goes to ``features``, and to ``memory`` when it requires one. With ``on_backward``
        there is no second derivative, and ``torch.compile`` runs this function as it is (a graph break).

    Raises:
        TypeError: a tensor of another dtype or layout; ``on_backward`` that cannot be called.
        ValueError: an empty input, other columns, different devices.

    Examples:
        >>> import torch, ccfast
        >>> memory = torch.eye(2)
        >>> features = torch.tensor([[0.6, 0.8]], requires_grad=True)
        >>> similarity = ccfast.memory_similarity(features, memory, on_backward=lambda rows: memory[0].copy_(rows[0]))
        >>> similarity.sum().backward()
        >>> features.grad.tolist()  # from the memory as it was
        [[1.0, 1.0]]
        >>> torch.equal(memory[0], features.detach()[0])
        True
    """
    features = checks.matrix("features", features, checks.ANY_FLOAT)
    memory = checks.matrix("memory", memory, checks.ANY_FLOAT)
    checks.same_columns(features=features, memory=memory)
    checks.same_device(features=features, memory=memory)
    features = features.to(torch.float64 if features.dtype is torch.float64 else torch.float32)
    with torch.autocast(features.device.type, enabled=False):
        if on_backward is None:
            return features @ memory.to(features.dtype).T
        if not callable(on_backward):
            raise TypeError(f"on_backward: expected a function, got {on_backward!r}")
        return _with_callback(features, memory, on_backward)


@torch.compiler.disable
def _with_callback(features: Tensor, memory: Tensor, on_backward: OnBackward) -> Tensor:
    return _MovingProduct.apply(features, memory, on_backward)


class _MovingProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, memory: Tensor, on_backward: OnBackward) -> Tensor:
        ctx.save_for_backward(features)
        # Not saved for backward: autograd would refuse rows that have moved since, and they may.
        ctx.memory, ctx.on_backward = memory, on_backward
        return features @ memory.to(features.dtype).T

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (features,) = ctx.saved_tensors
        by_features = by_memory = None
        with torch.autocast(features.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                by_features = upstream @ ctx.memory.to(upstream.dtype)
            if ctx.needs_input_grad[1]:
                by_memory = (upstream.T @ features).to(ctx.memory.dtype)
            ctx.on_backward(features.detach())
        return by_features, by_memory, None
