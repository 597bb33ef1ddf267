"""The cluster-level InfoNCE loss (Dai et al. 2021, eq. 2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ccfast import _arguments as arguments
from ccfast import _checks as checks


def centroid_contrastive_loss(
    features: Tensor,
    memory: Tensor,
    labels: Tensor,
    temperature: float | Tensor = 0.05,
    *,
    normalize: bool = True,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    ignore_index: int = -1,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of each feature's similarity to every centroid, divided by the temperature.

    ``cross_entropy(normalize(features) @ memory.T / temperature, labels)``, differentiable in ``features`` and, if it
    requires grad, in ``memory``.

    Args:
        features: ``[B, D]`` float32, float64, float16 or bfloat16. Computed in float64 for float64, else in float32.
        memory: ``[C, D]``, one centroid per row, any of these dtypes; used unchanged.
        labels: ``[B]`` integers in ``[0, C)``, or ``ignore_index`` for rows to leave out; or ``[B, C]`` weights t, for
            ``-sum_c t_c log softmax(z)_c``. A row with only zero weights is left out.
        temperature: above 0: a number, or ``[C]`` numbers, one per column.
        normalize: first scale rows of ``features`` to unit norm (norms below 1e-12 count as 1e-12).
        reduction: "mean" over the rows that are not left out, "sum", or "none" (0 for rows left out). The mean of no
            rows is 0, with zero gradients.
        label_smoothing: in ``[0, 1]``, as in :func:`torch.nn.functional.cross_entropy`.
        ignore_index: any integer.
        mask: ``[B, C]`` bool, the columns of the softmax and of its smoothing; the label's column must be True.
        weights: ``[B]`` factors of the rows' losses. The mean still divides by the number of rows.

    Returns:
        Scalar, or ``[B]`` for "none"; float64 for float64 features, else float32.

    Raises:
        TypeError: not a tensor, another dtype.
        ValueError: wrong shape, empty, different columns, lengths or devices, a label or number out of range, an
            unknown reduction, a label that is masked out, non-finite values, labels, temperature or weights that
            require a gradient.
    """
    features, memory, labels, temperature, temperatures, label_smoothing, ignore_index, mask, weights = (
        arguments.centroid_contrastive_loss(
            features, memory, labels, temperature, reduction, label_smoothing, ignore_index, mask, weights
        )
    )
    checks.finite_rows("features", features.detach())
    checks.finite_rows("memory", memory.detach())

    dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
    targets, counted = _targets(labels, len(memory), ignore_index, dtype)
    mask = torch.ones_like(targets, dtype=torch.bool) if mask is None else mask
    _check_extras(targets, mask, temperatures, weights)
    even = mask.to(dtype) / mask.sum(1, keepdim=True).clamp_min(1)
    smooth = (1 - label_smoothing) * targets + label_smoothing * even

    with torch.autocast(features.device.type, enabled=False):
        x = features.to(dtype)
        if normalize:
            x = F.normalize(x, dim=1)
        # A copy: the training loop updates the memory in place before backward, and the gradient needs the old memory.
        logits = x @ memory.to(dtype, copy=True).T / (temperature if temperatures is None else temperatures.to(dtype))
        logits = logits.masked_fill(~mask, torch.finfo(dtype).min)
        losses = -(smooth * F.log_softmax(logits, dim=1)).masked_fill(~mask | ~counted[:, None], 0).sum(1)
        losses = losses if weights is None else losses * weights.to(dtype)
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    return losses.sum() / counted.sum().clamp_min(1)


def _targets(labels: Tensor, classes: int, ignore_index: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The weight of every column ``[B, C]``, and the rows that are not left out ``[B]``."""
    if labels.is_floating_point():
        checks.finite_rows("labels", labels)
        return labels.to(dtype), (labels != 0).any(1)
    checks.labels_in_range("labels", labels, classes, ignore_index)
    counted = labels != ignore_index
    return F.one_hot(labels.where(counted, 0), classes).to(dtype) * counted[:, None], counted


def _check_extras(targets: Tensor, mask: Tensor, temperatures: Tensor | None, weights: Tensor | None) -> None:
    if weights is not None:
        checks.finite_rows("weights", weights[:, None])
    if temperatures is not None and not ((temperatures > 0) & torch.isfinite(temperatures)).all():
        column = int((~((temperatures > 0) & torch.isfinite(temperatures))).nonzero()[0, 0])
        raise ValueError(
            f"temperature: expected finite numbers above 0, got {float(temperatures[column])} for column {column}"
        )
    outside = ((targets != 0) & ~mask).any(1)
    if outside.any():
        row = int(outside.nonzero()[0, 0])
        raise ValueError(f"mask: expected True in the column of every label, got False in row {row}")
