"""Sinkhorn-Knopp normalisation (Caron et al. 2020, appendix A, as their code computes it)."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ccfast import _arguments as arguments
from ccfast import _checks as checks


def sinkhorn(scores: Any, epsilon: float = 0.05, iterations: int = 3, *, group: Any = None) -> Tensor:
    """See :func:`ccfast.sinkhorn`."""
    scores, epsilon, iterations = arguments.sinkhorn(scores, epsilon, iterations)
    checks.finite_rows("scores", scores)

    def over_group(value: Tensor) -> Tensor:
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(value, group=group)
        return value

    q = torch.exp(scores / epsilon)
    rows, columns = over_group(torch.tensor(float(q.shape[0]), device=q.device)), q.shape[1]
    q = q / over_group(q.sum())
    for _ in range(iterations):
        q = q / over_group(q.sum(0)) / columns
        q = q / q.sum(1, keepdim=True) / rows
    return q * rows
