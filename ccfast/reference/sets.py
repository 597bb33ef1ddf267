"""Contrastive loss with a set of positives per row (Khosla et al. 2020, eq. 2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ccfast import _arguments as arguments
from ccfast import _checks as checks


def set_contrastive_loss(logits: Any, positives: Any, keep: Any = None, *, multiplicity: Any = None) -> Tensor:
    """See :func:`ccfast.set_contrastive_loss`."""
    z, positives, keep, multiplicity = arguments.set_contrastive_loss(logits, positives, keep, multiplicity)
    keep = torch.ones_like(positives) if keep is None else keep
    if multiplicity is not None and (multiplicity < 0).any():
        raise ValueError(f"multiplicity: expected 0 or more, got {int(multiplicity.min())}")

    times = keep.to(z.dtype) if multiplicity is None else keep * multiplicity.to(z.dtype)
    has_loss = positives.any(1) & (times > 0).any(1)
    counted = torch.where(times > 0, z + times.log(), -torch.inf)
    counted = torch.where(has_loss[:, None], counted, 0)  # rows without a loss have no gradient
    mean = torch.where(positives, z, 0).sum(1) / positives.sum(1).clamp_min(1)
    losses = torch.where(has_loss, counted.logsumexp(1) - mean, 0)
    if not torch.isfinite(losses).all():
        checks.finite_rows("logits", z.detach())
    return losses
