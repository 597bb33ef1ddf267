"""Centroid contrastive loss. Its gradient is registered in csrc/contrastive/contrastive_autograd.cpp."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ccfast import _arguments as arguments


def centroid_contrastive_loss(
    features: Any,
    memory: Any,
    labels: Any,
    temperature: Any = 0.05,
    *,
    normalize: bool = True,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    ignore_index: int = -1,
    mask: Any = None,
    weights: Any = None,
) -> Tensor:
    """Cross-entropy of ``normalize(features) @ memory.T / temperature`` (Cluster Contrast, equation 2: ClusterNCE).

    Computed in float64 for float64 features, and in float32 for all other dtypes. The gradient goes to ``features``,
    and to ``memory`` if it requires one; one pass computes both the loss and the gradient.

    With ``mask``, the softmax and the smoothing use only the columns with True. With labels given as weights ``t``, the
    loss of a row is ``-sum_c t_c log softmax(z)_c``.

    Args:
        features: ``[B, D]`` float16, bfloat16, float32 or float64.
        memory: ``[C, D]`` of the same dtypes, rows of unit norm in the paper.
        labels: ``[B]`` integers in ``[0, C)``, or ``ignore_index``; or ``[B, C]`` floating-point weights without
            gradient, which need not sum to 1. A row with only zero weights is ignored.
        temperature: above 0: a number, or ``[C]`` floating-point values without gradient, one per column.
        normalize: first divide the features by their norm; False: use them unchanged.
        reduction: ``"mean"`` over the rows that are not ignored (0 if there are none), ``"sum"`` or ``"none"``.
        label_smoothing: in ``[0, 1]``, as in :func:`torch.nn.functional.cross_entropy`.
        ignore_index: label of rows without a loss.
        mask: ``[B, C]`` bool, True for the columns of a row's softmax; the label's column must be True.
        weights: ``[B]`` floating-point factors of the rows' losses, without gradient. The mean still divides by the
            number of rows that are not ignored.

    Returns:
        The loss: a scalar, or ``[B]`` with ``"none"``; float32, or float64 for float64 features. On the CPU the
        features' norms, the softmax and the sums have the same bits with any number of threads. The two products with
        the memory are torch's and may not: loss and gradients may differ in the last bits.

    Raises:
        TypeError: a tensor of another dtype or layout.
        ValueError: an empty input, wrong shapes, an argument out of range, labels out of range or masked out,
            non-finite values in any of the tensors, a tensor without gradient that requires one. On CUDA these checks
            would have to wait for the device: labels out of range are ignored there, a label that is masked out makes
            the loss infinite, and values are not checked.
        NotImplementedError: a forward-mode derivative (``torch.func.jvp``); second derivatives raise RuntimeError.

    Examples:
        >>> import torch, ccfast
        >>> memory = torch.eye(3)
        >>> features = torch.tensor([[9.0, 0.0, 0.0], [0.0, 1.0, 0.0]], requires_grad=True)
        >>> loss = ccfast.centroid_contrastive_loss(features, memory, torch.tensor([0, 1]), temperature=1.0)
        >>> loss.backward()
        >>> round(loss.item(), 4), features.grad.shape
        (0.5514, torch.Size([2, 3]))
    """
    features, memory, labels, temperature, temperatures, label_smoothing, ignore_index, mask, weights = (
        arguments.centroid_contrastive_loss(
            features, memory, labels, temperature, reduction, label_smoothing, ignore_index, mask, weights
        )
    )
    options = (temperature, bool(normalize), reduction, label_smoothing, ignore_index)
    with_gradient = torch.is_grad_enabled() and features.requires_grad
    return torch.ops.ccfast.centroid_contrastive_loss(
        features, memory, labels, *options, with_gradient, temperatures, mask, weights
    )[0]


def _compute_dtype(features: Tensor) -> torch.dtype:
    return torch.float64 if features.dtype is torch.float64 else torch.float32


@torch.library.register_fake("ccfast::centroid_contrastive_loss")
def _(
    features: Tensor,
    memory: Tensor,
    labels: Tensor,
    temperature: float,
    normalize: bool,
    reduction: str,
    label_smoothing: float,
    ignore_index: int,
    with_gradient: bool,
    temperatures: Tensor | None = None,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    batch, dim = features.shape
    dtype = _compute_dtype(features)
    loss = features.new_empty((batch,) if reduction == "none" else (), dtype=dtype)
    return loss, features.new_empty((batch if with_gradient else 0, dim), dtype=dtype)


@torch.library.register_fake("ccfast::centroid_contrastive_loss_memory_grad")
def _(
    upstream: Tensor,
    features: Tensor,
    memory: Tensor,
    labels: Tensor,
    temperature: float,
    normalize: bool,
    reduction: str,
    label_smoothing: float,
    ignore_index: int,
    temperatures: Tensor | None = None,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    return torch.empty_like(memory, memory_format=torch.contiguous_format)
