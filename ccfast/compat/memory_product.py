"""The authors' ``cm`` and ``cm_hard``: similarities whose backward pass moves the memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ccfast import _checks as checks
from ccfast.ops.memory import update_memory_from


def cm(inputs: Tensor, indexes: Tensor, features: Tensor, momentum: float = 0.5) -> Tensor:
    """Similarities ``inputs @ features.T``; backward then updates ``features`` sample by sample, in batch order.

    Args:
        inputs: ``[B, D]`` rows of unit norm.
        indexes: ``[B]`` rows of ``features`` that they belong to.
        features: ``[C, D]``, changed in place by every backward pass, which takes the gradient with what the rows
            hold at that moment. It gets no gradient.
        momentum: share of the old row that stays.

    Returns:
        ``[B, C]``.

    Raises:
        TypeError: a tensor of another dtype or layout.
        ValueError: other shapes, devices or lengths, ``momentum`` outside ``[0, 1]``; in backward, ``indexes`` out of
            range, non-finite or un-normalised rows.
    """
    return _product(inputs, indexes, features, momentum, "sequential")


def cm_hard(inputs: Tensor, indexes: Tensor, features: Tensor, momentum: float = 0.5) -> Tensor:
    """:func:`cm` that updates each row once, from its sample of lowest similarity (the first of equals).

    Arguments, result and errors are those of :func:`cm`.
    """
    return _product(inputs, indexes, features, momentum, "hardest")


def _product(inputs: Tensor, indexes: Tensor, features: Tensor, momentum: float, mode: str) -> Tensor:
    inputs = checks.matrix("inputs", inputs, checks.ANY_FLOAT)
    features = checks.matrix("features", features, checks.SINGLE_OR_DOUBLE)
    indexes = checks.vector_of_integers("indexes", indexes, len(inputs), "inputs")
    checks.same_columns(inputs=inputs, features=features)
    checks.same_device(inputs=inputs, indexes=indexes, features=features)
    return _MovingProduct.apply(inputs, indexes, features, checks.real("momentum", momentum, low=0, high=1), mode)


class _MovingProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, indexes: Tensor, features: Tensor, momentum: float, mode: str) -> Tensor:
        ctx.save_for_backward(inputs, indexes)
        # Not saved: backward means the rows as they are then, which the update before it may have changed.
        ctx.features, ctx.momentum, ctx.mode = features.detach(), momentum, mode
        return inputs.to(features.dtype) @ ctx.features.T

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        inputs, indexes = ctx.saved_tensors
        moved = (gradient @ ctx.features).to(inputs.dtype) if ctx.needs_input_grad[0] else None
        rows = inputs.to(ctx.features.dtype)
        update_memory_from(ctx.features, rows, indexes, ctx.momentum, ctx.mode, normalize=False)
        return moved, None, None, None, None
