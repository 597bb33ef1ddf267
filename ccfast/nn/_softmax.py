"""Cross-entropy over similarities to a bank, for modules whose bank moves in backward."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ccfast import _checks as checks


def counted_labels(name: str, labels: Tensor, classes: int) -> Tensor:
    """``labels`` as int64 of which those to leave out are -1.

    Labels out of ``[-1, classes)`` raise ValueError on a CPU; elsewhere nothing waits for the device, and they are left
    out.
    """
    labels = labels.to(torch.int64)
    if labels.device.type == "cpu":
        checks.labels_in_range(name, labels, classes)
        return labels
    return torch.where((labels < 0) | (labels >= classes), -1, labels)


def mean_of_counted(losses: Tensor, counted: Tensor) -> Tensor:
    """Mean of the rows' losses over the rows that count; 0, with zero gradients, where none does."""
    return torch.where(counted, losses, 0).sum() / counted.sum().clamp_min(1)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over the rows whose label is not -1; 0 where there is none."""
    return F.cross_entropy(logits, labels, reduction="sum", ignore_index=-1) / (labels != -1).sum().clamp_min(1)
