"""Exact k nearest neighbours, in blocks of queries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from ccfast import _arguments as arguments
from ccfast import _checks as checks

LANES = 128  # of squared_distances
_LAST_LANES = 4
_BLOCK = 256  # queries per block
_PAIR_ELEMENTS = 1 << 24  # limit of the float64 numbers in memory while pairs are re-scored (128 MiB)


def knn(features: Tensor, k: int, *, queries: Tensor | None = None, precision: str = "fp32") -> tuple[Tensor, Tensor]:
    """The ``k`` rows of ``features`` nearest to each query in squared Euclidean distance, nearest first.

    Neighbours are sorted by the float64 value of :func:`squared_distances`; for ties the lower index comes first. Only
    the result is rounded to float32 (infinity above the largest float32). Without ``queries``, a row comes first among
    its own neighbours, even if duplicates have a lower index.

    Args:
        features: ``[N, D]`` float32, float16 or bfloat16, finite, of any norm.
        k: neighbours per query, in ``[1, N]``.
        queries: ``[Q, D]`` like ``features``; None: every row of ``features``, which then finds itself first.
        precision: "fp32", "fp16" or "bf16", the arithmetic of the ops' candidate search. The result is exact for each
            of them; this reference always searches in float64, which no global precision setting changes.

    Returns:
        ``indices`` ``[Q, k]`` int64 and ``distances`` ``[Q, k]`` float32.

    Raises:
        TypeError: not a tensor, another dtype.
        ValueError: wrong shape, empty, different columns or devices, ``k`` out of range, an unknown precision, or a
            non-finite value (the message names the first bad row).
    """
    features, k, queries = arguments.knn(features, k, queries, precision)
    if queries is not None:
        checks.finite_rows("queries", queries)
    checks.finite_rows("features", features)

    with with_subnormals():
        points = features.double()
        searched = points if queries is None else queries.double()
        blocks = [_nearest(block, points, k) for block in searched.split(_BLOCK)]
        indices, distances = (torch.cat(part) for part in zip(*blocks, strict=True))
        return (indices if queries is not None else _own_first(indices)), distances


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distance between each row of ``a`` [P, D] and the same row of ``b``, both float64, ``[P]``.

    Dimension d goes to lane ``d % 128``, each lane in ascending order. The upper half of the lanes is added to the
    lower half until four are left; these are added in order. The kernels add in the same order, so near-ties have the
    same order on every device.
    """
    squares = a - b
    squares = squares * squares
    lanes = LANES
    while lanes > _LAST_LANES and lanes // 2 >= squares.shape[1]:
        lanes //= 2  # the others are zero
    steps = F.pad(squares, (0, -squares.shape[1] % lanes)).unflatten(1, (-1, lanes)).unbind(1)
    sums = _added_in_order(steps)
    while sums.shape[1] > _LAST_LANES:
        lower, upper = sums.chunk(2, dim=1)
        sums = lower + upper
    return _added_in_order(sums.unbind(1))


def _added_in_order(terms: tuple[Tensor, ...]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _own_first(indices: Tensor) -> Tensor:
    """Every row's own index, then the others in their order, up to the length of the list."""
    own = torch.arange(len(indices), device=indices.device)[:, None]
    again = F.pad(indices == own, (1, 0))
    order = again.long().argsort(dim=1, stable=True)[:, : indices.shape[1]]
    return torch.cat([own, indices], dim=1).gather(1, order)


@contextmanager
def with_subnormals() -> Iterator[None]:
    """Compute with numbers below 2**-126, also under ``torch.set_flush_denormal(True)``."""
    smallest = torch.ones((), dtype=torch.int32).view(torch.float32)
    flushed = float(smallest.double()) == 0
    if flushed:
        torch.set_flush_denormal(False)
    try:
        yield
    finally:
        if flushed:
            torch.set_flush_denormal(True)


def _nearest(queries: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """``knn`` for one block of float64 queries: candidates by a matrix product, then their exact distances."""
    query_norms, point_norms = (queries**2).sum(1), (points**2).sum(1)
    approximate = query_norms[:, None] + point_norms[None, :] - 2 * (queries @ points.T)
    # |x|^2 + |y|^2 - 2<x,y> cancels: its error is bounded by that of its largest term, on both sides of the k-th value
    # (docs/exactness.md).
    rounding = (points.shape[1] + 4) * torch.finfo(torch.float64).eps
    slack = 2 * rounding * (query_norms + point_norms.max())
    kth = approximate.topk(k, dim=1, largest=False).values[:, -1]
    rows, columns = torch.nonzero(approximate <= (kth + 2 * slack)[:, None], as_tuple=True)

    pairs_at_once = max(1, _PAIR_ELEMENTS // points.shape[1])
    exact = torch.cat(
        [
            squared_distances(queries[r], points[c])
            for r, c in zip(rows.split(pairs_at_once), columns.split(pairs_at_once), strict=True)
        ]
    )
    # Pairs come in ascending (row, column): two stable sorts put them in the order (row, distance, column).
    order = exact.argsort(stable=True)
    order = order[rows[order].argsort(stable=True)]
    start = torch.searchsorted(rows, torch.arange(len(queries), device=rows.device))
    chosen = order[start[:, None] + torch.arange(k, device=rows.device)]
    return columns[chosen], exact[chosen].float()
