"""Similarities to a bank that is updated in backward, and their means by label."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from ccfast import _arguments as arguments
from ccfast._never_compiled import never_compiled

#: Called in backward with the features of the forward pass, ``[B, D]``, detached and in the dtype of the product.
OnBackward = Callable[[Tensor], None]


def memory_similarity(features: Any, memory: Any, on_backward: OnBackward | None = None) -> Tensor:
    """Inner products ``features @ memory.T``, with a bank that is updated in backward.

    The banks of the authors' code are autograd functions whose backward pass updates them. This function does the same:
    backward first computes ``upstream @ memory`` with the current rows of ``memory``, and then calls ``on_backward``,
    which may change them. So each backward pass through this product is one update. Two products before one backward
    use the same rows; the gradient of the first product then uses rows that the backward pass of the second has
    updated. Without a backward pass (under ``no_grad``, for features that need no gradient) nothing is updated.

    Args:
        features: ``[B, D]`` float16, bfloat16, float32 or float64. Computed in float64 for float64, else in float32,
            also under autocast.
        memory: ``[C, D]`` of the same dtypes, used unchanged. It is not copied, and may change before backward.
        on_backward: called as ``on_backward(features)`` in every backward pass, after the gradient; ``features`` are
            those of the forward pass, detached, in the dtype of the product.

    Returns:
        ``[B, C]``. The gradient goes to ``features``, and to ``memory`` if it requires one. With ``on_backward``
        there is no second derivative, and ``torch.compile`` does not compile this function (a graph break).

    Raises:
        TypeError: a tensor of another dtype or layout; ``on_backward`` that cannot be called.
        ValueError: an empty input, a different number of columns, different devices.

    Examples:
        >>> import torch, ccfast
        >>> memory = torch.eye(2)
        >>> features = torch.tensor([[0.6, 0.8]], requires_grad=True)
        >>> similarity = ccfast.memory_similarity(features, memory, on_backward=lambda rows: memory[0].copy_(rows[0]))
        >>> similarity.sum().backward()
        >>> features.grad.tolist()  # from the memory before the update
        [[1.0, 1.0]]
        >>> torch.equal(memory[0], features.detach()[0])
        True
    """
    features, memory = arguments.memory_similarity(features, memory, on_backward)
    with _without_autocast(features.device.type):
        if on_backward is None:
            return features @ memory.to(features.dtype).T
        return _with_callback(features, memory, on_backward)


def _without_autocast(device: str) -> AbstractContextManager[object]:
    """Switch autocast off if it is on; switching takes as long as a small product."""
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


@never_compiled
def _with_callback(features: Tensor, memory: Tensor, on_backward: OnBackward) -> Tensor:
    return _MovingProduct.apply(features, memory, on_backward)


class _MovingProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, memory: Tensor, on_backward: OnBackward) -> Tensor:
        ctx.save_for_backward(features)
        # Not saved for backward: autograd would refuse rows that have changed since then, and they may change.
        ctx.memory, ctx.on_backward = memory, on_backward
        return features @ memory.to(features.dtype).T

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (features,) = ctx.saved_tensors
        by_features = by_memory = None
        with _without_autocast(features.device.type):
            if ctx.needs_input_grad[0]:
                by_features = upstream @ ctx.memory.to(upstream.dtype)
            if ctx.needs_input_grad[1]:
                by_memory = (upstream.T @ features).to(ctx.memory.dtype)
            ctx.on_backward(features.detach())
        return by_features, by_memory, None


def segment_mean(similarities: Any, labels: Any, num_segments: int) -> tuple[Tensor, Tensor]:
    """Mean of the columns of each label: the similarity to its centroid, without computing it (SpCL, equation 1).

    Args:
        similarities: ``[B, N]`` float16, bfloat16, float32 or float64. Computed in float64 for float64, else in
            float32, with sums in float64.
        labels: ``[N]`` integers in ``[0, num_segments)``; columns with the label -1 are left out.
        num_segments: C, at least 1.

    Returns:
        ``means`` ``[B, C]``, 0 for a label without columns, and ``present`` ``[C]`` bool, whether a label has any.

    Raises:
        TypeError: a tensor of another dtype or layout.
        ValueError: an empty input, a wrong length, a label out of range (on CUDA this check would have to wait for the
            device: such columns are left out).

    Examples:
        >>> import torch, ccfast
        >>> similarities = torch.tensor([[1.0, 3.0, 5.0, 9.0]])
        >>> means, present = ccfast.segment_mean(similarities, torch.tensor([0, 0, 2, -1]), num_segments=3)
        >>> means.tolist(), present.tolist()
        ([[2.0, 0.0, 5.0]], [True, False, True])
    """
    means, counts = torch.ops.ccfast.segment_mean(*arguments.segment_mean(similarities, labels, num_segments))
    return means, counts > 0


@torch.library.register_fake("ccfast::segment_mean")
def _(similarities: Tensor, labels: Tensor, num_segments: int) -> tuple[Tensor, Tensor]:
    return similarities.new_empty((similarities.shape[0], num_segments)), labels.new_empty((num_segments,))


@torch.library.register_fake("ccfast::segment_mean_backward")
def _(upstream: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    return upstream.new_empty((upstream.shape[0], labels.shape[0]))


def _setup_mean(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(inputs[1], output[1])


def _mean_backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
    labels, counts = ctx.saved_tensors
    return torch.ops.ccfast.segment_mean_backward(upstream, labels, counts), None, None


torch.library.register_autograd("ccfast::segment_mean", _mean_backward, setup_context=_setup_mean)


def _setup_mean_backward(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])
    ctx.segments = inputs[0].shape[1]


def _mean_backward_backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
    # The mean is linear: its gradient's gradient is the mean itself.
    return torch.ops.ccfast.segment_mean(upstream, ctx.saved_tensors[0], ctx.segments)[0], None, None


torch.library.register_autograd(
    "ccfast::segment_mean_backward", _mean_backward_backward, setup_context=_setup_mean_backward
)
