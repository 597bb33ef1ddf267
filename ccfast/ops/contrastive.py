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

    Computed in float32 (float64 for float64 features) whatever the dtype of the features. The gradient goes to
    ``features``, and to ``memory`` when it requires one; it comes from the same pass as the loss.

    With ``mask``, the softmax is over the columns that take part, and so is the smoothing. Labels given as weights
    ``t`` make the loss of a row ``-sum_c t_c log softmax(z)_c``.

    Args:
        features: ``[B, D]`` float16, bfloat16, float32 or float64.
        memory: ``[C, D]`` of the same dtypes, rows of unit norm in the paper.
        labels: ``[B]`` integers in ``[0, C)``, or ``ignore_index``; or ``[B, C]`` floating-point weights, a constant,
            which need not add up to 1. A row whose weights are all 0 is ignored.
        temperature: above 0: a number, or ``[C]`` floating-point values, one for each column, a constant.
        normalize: divide the features by their norm first; otherwise they are taken as they are.
        reduction: ``"mean"`` over the rows that are not ignored (0 where there is none), ``"sum"`` or ``"none"``.
        label_smoothing: in ``[0, 1]``, as in :func:`torch.nn.functional.cross_entropy`.
        ignore_index: label of rows without a loss.
        mask: ``[B, C]`` bool, True for the columns that take part in a row's softmax; the label's must.
        weights: ``[B]`` floating-point factors of the rows' losses, a constant. The mean still divides by the number
            of rows that are not ignored.

    Returns:
        The loss: a scalar, or ``[B]`` under ``"none"``; float32, or float64 for float64 features. On the CPU the
        features' norms, the softmax and the sums are the same on any number of threads, but not the two products with
        the memory, which are torch's: loss and gradients may differ in the last bits.

    Raises:
        TypeError: a tensor of another dtype or layout.
        ValueError: an empty input, other shapes, an argument out of range, labels out of range or on a column that
            does not take part, non-finite values in any of the tensors, a gradient asked for a tensor that is a
            constant. On CUDA nothing waits for the device: labels out of range are ignored there, a label on a column
            that does not take part makes the loss infinite, and values are not looked at.
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
