"""The cluster-level InfoNCE loss (Dai et al. 2021, eq. 2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ccfast import _checks as checks

REDUCTIONS = ("mean", "sum", "none")


def centroid_contrastive_loss(
    features: Tensor,
    memory: Tensor,
    labels: Tensor,
    temperature: float = 0.05,
    *,
    normalize: bool = True,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    ignore_index: int = -1,
) -> Tensor:
    """Cross-entropy of each feature's similarity to every centroid, divided by the temperature.

    ``cross_entropy(normalize(features) @ memory.T / temperature, labels)``, differentiable in ``features`` and, when
    it requires grad, in ``memory``.

    Args:
        features: ``[B, D]`` float32, float64, float16 or bfloat16. Computed in float64 for float64, else in float32.
        memory: ``[C, D]``, one centroid a row, any of these dtypes; used as it is.
        labels: ``[B]`` integers in ``[0, C)``, or ``ignore_index`` for rows to leave out.
        temperature: above 0.
        normalize: scale rows of ``features`` to unit norm first (norms below 1e-12 count as 1e-12).
        reduction: "mean" over the rows that are not left out, "sum", or "none" (0 for rows left out). The mean of no
            rows is 0, with zero gradients.
        label_smoothing: in ``[0, 1]``, as in :func:`torch.nn.functional.cross_entropy`.
        ignore_index: any integer.

    Returns:
        Scalar, or ``[B]`` for "none"; float64 for float64 features, else float32.

    Raises:
        TypeError: not a tensor, another dtype.
        ValueError: wrong shape, empty, different columns, lengths or devices, a label or number out of range, an
            unknown reduction, non-finite features or memory.
    """
    features = checks.matrix("features", features, checks.ANY_FLOAT)
    memory = checks.matrix("memory", memory, checks.ANY_FLOAT)
    checks.same_columns(features=features, memory=memory)
    labels = checks.vector_of_integers("labels", labels, features.shape[0], "features")
    checks.same_device(features=features, memory=memory, labels=labels)
    temperature = checks.real("temperature", temperature, low=0, ends="(]")
    checks.choice("reduction", reduction, REDUCTIONS)
    label_smoothing = checks.real("label_smoothing", label_smoothing, low=0, high=1)
    ignore_index = checks.integer("ignore_index", ignore_index, low=-(2**63))
    checks.labels_in_range("labels", labels, memory.shape[0], ignore_index)
    checks.finite_rows("features", features.detach())
    checks.finite_rows("memory", memory.detach())

    dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
    with torch.autocast(features.device.type, enabled=False):
        x = features.to(dtype)
        if normalize:
            x = F.normalize(x, dim=1)
        # A copy: the training loop updates the memory in place before it asks for the gradient, which is the old one's.
        logits = x @ memory.to(dtype, copy=True).T / temperature
        losses = F.cross_entropy(
            logits, labels, reduction="none", label_smoothing=label_smoothing, ignore_index=ignore_index
        )
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    return losses.sum() / (labels != ignore_index).sum().clamp_min(1)
