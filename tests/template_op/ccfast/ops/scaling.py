"""Multiplies each row of a matrix by a factor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ccfast import _arguments as arguments


def scale_rows(features: Any, factors: Any) -> Tensor:
    """Each row times its factor: ``factors[:, None] * features``.

    Args:
        features: ``[N, D]`` float32 or float64.
        factors: ``[N]`` of the same dtype.

    Returns:
        ``[N, D]``, differentiable in both, any number of times.

    Raises:
        TypeError: a tensor of another dtype or layout.
        ValueError: an empty input, another length, mixed devices.

    Examples:
        >>> import torch, ccfast
        >>> ccfast.scale_rows(torch.ones(2, 3), torch.tensor([2.0, 5.0])).tolist()
        [[2.0, 2.0, 2.0], [5.0, 5.0, 5.0]]
    """
    return torch.ops.ccfast.scale_rows(*arguments.scale_rows(features, factors))


@torch.library.register_fake("ccfast::scale_rows")
def _(features: Tensor, factors: Tensor) -> Tensor:
    return torch.empty_like(features, memory_format=torch.contiguous_format)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, Tensor | None]:
    features, factors = ctx.saved_tensors
    of_features, of_factors = ctx.needs_input_grad
    return (
        torch.ops.ccfast.scale_rows(upstream, factors) if of_features else None,
        (upstream * features).sum(1) if of_factors else None,
    )


torch.library.register_autograd("ccfast::scale_rows", _backward, setup_context=_setup_context)
