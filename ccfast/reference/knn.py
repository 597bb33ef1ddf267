"""Exact k nearest neighbours, by blocks of queries."""

from __future__ import annotations

import torch
from torch import Tensor

from ccfast import _checks as checks

PRECISIONS = ("fp32", "fp16", "bf16")
_BLOCK = 256  # queries searched at once
_PAIR_ELEMENTS = 1 << 24  # bound on the float64 numbers held while pairs are re-scored (128 MiB)


def knn(features: Tensor, k: int, *, queries: Tensor | None = None, precision: str = "fp32") -> tuple[Tensor, Tensor]:
    """The ``k`` rows of ``features`` nearest to each query in squared Euclidean distance, nearest first.

    The distance is ``sum((x - y)**2)`` accumulated in float64; that value orders the neighbours, ties go to the lower
    index, and it is rounded to float32 only for the result.

    Args:
        features: ``[N, D]`` float32, float16 or bfloat16, finite; norms are free.
        k: neighbours for each query, in ``[1, N]``.
        queries: ``[Q, D]`` like ``features``; None searches every row of ``features``, which then finds itself too.
        precision: "fp32", "fp16" or "bf16", the arithmetic in which the ops look for candidates. The result is exact
            for each of them; this reference always searches in float64, which no global precision setting touches.

    Returns:
        ``indices`` ``[Q, k]`` int64 and ``distances`` ``[Q, k]`` float32.

    Raises:
        TypeError: not a tensor, another dtype.
        ValueError: wrong shape, empty, different columns or devices, ``k`` out of range, an unknown precision, or a
            non-finite value (the message names the first bad row).
    """
    features = checks.matrix("features", features, checks.HALF_OR_SINGLE)
    if queries is not None:
        queries = checks.matrix("queries", queries, checks.HALF_OR_SINGLE)
        checks.same_columns(features=features, queries=queries)
        checks.same_device(features=features, queries=queries)
        checks.finite_rows("queries", queries)
    k = checks.integer("k", k, low=1, high=features.shape[0], high_name="the number of rows of features")
    checks.choice("precision", precision, PRECISIONS)
    checks.finite_rows("features", features)

    points = features.detach().double()
    searched = points if queries is None else queries.detach().double()
    blocks = [_nearest(block, points, k) for block in searched.split(_BLOCK)]
    return torch.cat([indices for indices, _ in blocks]), torch.cat([distances for _, distances in blocks])


def _nearest(queries: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """``knn`` of one block of float64 queries: candidates by a matrix product, then their exact distances."""
    query_norms, point_norms = (queries**2).sum(1), (points**2).sum(1)
    approximate = query_norms[:, None] + point_norms[None, :] - 2 * (queries @ points.T)
    # |x|^2 + |y|^2 - 2<x,y> cancels: its error is bounded by that of its largest term, on both sides of the k-th value.
    rounding = (points.shape[1] + 4) * torch.finfo(torch.float64).eps
    slack = 2 * rounding * (query_norms + point_norms.max())
    kth = approximate.topk(k, dim=1, largest=False).values[:, -1]
    rows, columns = torch.nonzero(approximate <= (kth + 2 * slack)[:, None], as_tuple=True)

    pairs_at_once = max(1, _PAIR_ELEMENTS // points.shape[1])
    exact = torch.cat(
        [
            ((queries[r] - points[c]) ** 2).sum(1)
            for r, c in zip(rows.split(pairs_at_once), columns.split(pairs_at_once), strict=True)
        ]
    )
    # Pairs come in ascending (row, column): two stable sorts put them in the order (row, distance, column).
    order = exact.argsort(stable=True)
    order = order[rows[order].argsort(stable=True)]
    start = torch.searchsorted(rows, torch.arange(len(queries), device=rows.device))
    chosen = order[start[:, None] + torch.arange(k, device=rows.device)]
    return columns[chosen], exact[chosen].float()
