"""Sinkhorn-Knopp normalisation of scores into assignments."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ccfast import _arguments as arguments


def sinkhorn(scores: Any, epsilon: float = 0.05, iterations: int = 3, *, group: Any = None) -> Tensor:
    """Assignment of each row to columns, all of which are used equally (SwAV, section 3.1 and appendix A).

    ``exp(scores / epsilon)``, normalised alternately over the columns (to 1 / K each) and over the rows (to 1 each at
    the end), ``iterations`` times. As in the authors' code, no maximum is subtracted, so scores far above ``epsilon``
    overflow to NaN.

    If ``torch.distributed`` is initialised, the rows of all processes of the group are normalised together: the column
    sums are added up over the group.

    Args:
        scores: ``[B, K]`` float16, bfloat16, float32 or float64; computed in float64 for float64, else in float32.
        epsilon: above 0.
        iterations: at least 0.
        group: the process group, as the functions of ``torch.distributed`` take it; None is the default one.

    Returns:
        ``[B, K]``, float32 or float64, rows that sum to 1; without a gradient.

    Raises:
        TypeError: a tensor of another dtype or layout.
        ValueError: an empty input, an argument out of range, non-finite scores (not checked on CUDA, where the check
            would have to wait for the device).

    Examples:
        >>> import torch, ccfast
        >>> scores = torch.tensor([[0.3, 0.0], [0.2, 0.0]])  # both rows prefer column 0
        >>> assignment = ccfast.sinkhorn(scores, epsilon=0.05)
        >>> assignment.argmax(1).tolist()  # but the columns are used equally
        [0, 1]
        >>> torch.allclose(assignment.sum(1), torch.ones(2))
        True
    """
    scores, epsilon, iterations = arguments.sinkhorn(scores, epsilon, iterations)
    exponentials, sums = torch.ops.ccfast.sinkhorn_exp(scores, epsilon)
    sums = _over_group(sums, group)
    if iterations == 0:
        rows = _over_group(sums.new_full((), scores.shape[0]), group)
        return (exponentials * (rows / sums.sum())).to(scores.dtype)
    for _ in range(iterations - 1):
        sums = _over_group(torch.ops.ccfast.sinkhorn_sums(exponentials, 1 / sums), group)
    return torch.ops.ccfast.sinkhorn_assign(exponentials, 1 / sums)


def _over_group(sums: Tensor, group: Any) -> Tensor:
    """Add up the sums of all processes of the group, in place."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(sums, group=group)
    return sums


@torch.library.register_fake("ccfast::sinkhorn_exp")
def _(scores: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    exponentials = torch.empty_like(scores, memory_format=torch.contiguous_format)
    return exponentials, scores.new_empty((scores.shape[1],), dtype=torch.float64)


@torch.library.register_fake("ccfast::sinkhorn_sums")
def _(exponentials: Tensor, factors: Tensor) -> Tensor:
    return torch.empty_like(factors, memory_format=torch.contiguous_format)


@torch.library.register_fake("ccfast::sinkhorn_assign")
def _(exponentials: Tensor, factors: Tensor) -> Tensor:
    return torch.empty_like(exponentials, memory_format=torch.contiguous_format)
