"""Cross-entropies over similarities to a bank; rows with the label -1 are ignored."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ccfast import _checks as checks
from ccfast.nn._choice import best_columns


def counted_labels(name: str, labels: Tensor, classes: int) -> Tensor:
    """``labels`` as int64, with -1 for rows to leave out.

    Labels out of ``[-1, classes)`` raise ValueError on a CPU. On other devices this check would have to wait for the
    device; such rows are left out.
    """
    labels = labels.to(torch.int64)
    if labels.device.type == "cpu":
        checks.labels_in_range(name, labels, classes)
        return labels
    return torch.where((labels < 0) | (labels >= classes), -1, labels)


def mean_of_counted(losses: Tensor, counted: Tensor) -> Tensor:
    """Mean of the losses over the rows that are not ignored; 0, with zero gradients, if there are none."""
    return torch.where(counted, losses, 0).sum() / counted.sum().clamp_min(1)


def cross_entropies(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0, best: bool = True) -> Tensor:
    """``[B]`` cross-entropies, 0 for label -1; smoothing as :func:`smoothed_cross_entropy`."""
    columns = logits.shape[1]
    log_softmax = logits.log_softmax(1)
    losses = -log_softmax.gather(1, labels.clamp_min(0)[:, None]).squeeze(1)
    if label_smoothing > 0:
        few = columns // 50
        if best and few > 1:
            everywhere = torch.ones(columns, dtype=torch.bool, device=logits.device)
            chosen = best_columns(logits.detach(), few, everywhere)
            spread = -torch.where(chosen, log_softmax, 0).sum(1) / few
        else:
            spread = -log_softmax.mean(1)
        losses = (1 - label_smoothing) * losses + label_smoothing * spread
    return torch.where(labels != -1, losses, 0)


def cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean of :func:`cross_entropies` over the rows whose label is not -1."""
    return mean_of_counted(cross_entropies(logits, labels, label_smoothing), labels != -1)


def smoothed_cross_entropy(
    logits: Any, targets: Any, label_smoothing: float = 0.1, *, over_best: bool = True
) -> Tensor:
    """Cross-entropy with the smoothing of HHCL: a part of the weight goes to the classes with the highest logits.

    With C classes and k = C // 50, the weights are ``(1 - e) onehot(y)`` plus ``e / k`` on each of the k classes with
    the highest logit of the row, which may include the target; the choice has no gradient. For k below 2, or without
    ``over_best``, e is spread over all classes.

    Args:
        logits: ``[B, C]`` float16, bfloat16, float32 or float64.
        targets: ``[B]`` integers in ``[0, C)``, or -1 for rows to leave out.
        label_smoothing: e, in ``[0, 1]``.
        over_best: True: the best classes share e; False: all classes do.

    Returns:
        The scalar mean over the rows that are not ignored, float32, or float64 for float64 logits.

    Raises:
        TypeError: a tensor of another dtype or layout.
        ValueError: an empty input, a wrong length, an argument out of range.

    Examples:
        >>> import torch, ccfast
        >>> logits = torch.tensor([[2.0, 0.0]])
        >>> loss = ccfast.nn.smoothed_cross_entropy(logits, torch.tensor([0]), label_smoothing=0.1)
        >>> loss.allclose(torch.nn.functional.cross_entropy(logits, torch.tensor([0]), label_smoothing=0.1))
        True
    """
    logits = checks.matrix("logits", logits, checks.ANY_FLOAT)
    targets = checks.vector_of_integers("targets", targets, logits.shape[0], "logits")
    checks.same_device(logits=logits, targets=targets)
    targets = counted_labels("targets", targets, logits.shape[1])
    label_smoothing = checks.real("label_smoothing", label_smoothing, low=0, high=1)
    wide = logits if logits.dtype is torch.float64 else logits.float()
    return mean_of_counted(cross_entropies(wide, targets, label_smoothing, over_best), targets != -1)
