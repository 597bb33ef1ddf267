"""The authors' re-ranking of distance matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ccfast import _checks as checks
from ccfast.compat._inputs import matrix
from ccfast.ops.jaccard import half_columns

_BLOCK = 256  # rows that are ranked at the same time


def re_ranking(
    q_g_dist: Any, q_q_dist: Any, g_g_dist: Any, k1: int = 20, k2: int = 6, lambda_value: float = 0.3
) -> np.ndarray:
    """k-reciprocal re-ranking of distance matrices (Zhong et al., CVPR 2017, equation 12), as in the authors' code.

    This function squares the distances, which is correct for Euclidean distances. The authors'
    ``evaluate(rerank=True)`` passes ``pairwise_distance``, which is already squared: its published numbers use fourth
    powers.
    :func:`re_ranking_paper` takes squared distances.

    Args:
        q_g_dist: ``[Q, G]`` distances of queries to gallery.
        q_q_dist: ``[Q, Q]`` between the queries.
        g_g_dist: ``[G, G]`` between the gallery entries.
        k1: neighbours without the row itself, at least 1; more than the number of rows means all.
        k2: rows averaged by the query expansion, at least 1; 1 skips it.
        lambda_value: share of the original distance.

    Returns:
        ``[Q, G]`` float32: ``(1 - lambda) * Jaccard + lambda * d``, where d is the squared distance divided by the
        largest in the query's column.

    Raises:
        TypeError: not numbers.
        ValueError: an empty input, shapes that do not match, ``k1`` or ``k2`` below 1, non-finite distances.
    """
    return _reranked(q_g_dist, q_q_dist, g_g_dist, k1, k2, lambda_value, squared=False)


def re_ranking_paper(
    q_g_dist: Any, q_q_dist: Any, g_g_dist: Any, k1: int = 20, k2: int = 6, lambda_value: float = 0.3
) -> np.ndarray:
    """:func:`re_ranking` for **squared** Euclidean distances, as from ``pairwise_distance``: the paper's result.

    It equals ``re_ranking`` of their square roots, and :func:`ccfast.k_reciprocal_rerank` of the features. Arguments,
    result and errors are those of :func:`re_ranking`.
    """
    return _reranked(q_g_dist, q_q_dist, g_g_dist, k1, k2, lambda_value, squared=True)


def _reranked(
    q_g_dist: Any, q_q_dist: Any, g_g_dist: Any, k1: int, k2: int, lambda_value: float, squared: bool
) -> np.ndarray:
    k1 = checks.integer("k1", k1, low=1)
    k2 = checks.integer("k2", k2, low=1)
    lambda_value = checks.real("lambda_value", lambda_value)
    scaled, queries = _scaled_distances(q_g_dist, q_q_dist, g_g_dist, squared)
    total = len(scaled)
    rank = _nearest(scaled, min(max(k1 + 1, k2), total))
    width = min(k1 + 1, total)
    parts = _encoding(scaled, rank[:, :width].contiguous(), min(half_columns(min(k1, 2 * total)), width))
    if k2 > 1:
        parts = torch.ops.ccfast.expand_queries(*parts, rank, min(k2, total))
    jaccard = torch.ops.ccfast.dense_jaccard(*parts, 0, queries, queries, total)
    return ((1 - lambda_value) * jaccard + lambda_value * scaled[:queries, queries:]).numpy()


def _scaled_distances(q_g_dist: Any, q_q_dist: Any, g_g_dist: Any, squared: bool) -> tuple[Tensor, int]:
    """``[N, N]`` float32 of all rows, queries first: squared, each row divided by the largest of its own column."""
    names = {"q_g_dist": q_g_dist, "q_q_dist": q_q_dist, "g_g_dist": g_g_dist}
    q_g, q_q, g_g = (matrix(name, value) for name, value in names.items())
    queries, gallery = q_g.shape
    for name, value, side in (("q_q_dist", q_q, queries), ("g_g_dist", g_g, gallery)):
        if value.shape != (side, side):
            raise ValueError(
                f"{name}: expected shape {(side, side)} beside q_g_dist {q_g.shape}, got shape {value.shape}"
            )
    total = queries + gallery
    scaled = np.empty((total, total), np.float32)  # row i is column i of the distances of all rows, queries first
    blocks = {(0, 0): q_q.T, (0, queries): q_g, (queries, 0): q_g.T, (queries, queries): g_g.T}
    for (row, column), block in blocks.items():
        place = scaled[row : row + block.shape[0], column : column + block.shape[1]]
        place[...] = block if squared else np.square(block)
    largest = scaled.max(axis=1, keepdims=True)
    if not (np.isfinite(largest).all() and np.isfinite(scaled.min())):
        raise ValueError("q_g_dist, q_q_dist, g_g_dist: expected squares that fit into float32, got NaN or infinity")
    largest[largest == 0] = 1
    scaled /= largest
    return torch.from_numpy(scaled), queries


def _nearest(distances: Tensor, k: int) -> Tensor:
    """``[N, k]`` columns of the smallest entries of each row, smallest first; for ties the lower column first."""
    return torch.cat([_nearest_of_block(block, k) for block in distances.split(_BLOCK)])


def _nearest_of_block(block: Tensor, k: int) -> Tensor:
    limit = block.kthvalue(k, dim=1, keepdim=True).values
    rows, columns = torch.nonzero(block <= limit, as_tuple=True)
    order = block[rows, columns].argsort(stable=True)
    order = order[rows[order].argsort(stable=True)]  # by row, distance, column
    start = torch.searchsorted(rows, torch.arange(len(block)))
    return columns[order[start[:, None] + torch.arange(k)]]


def _encoding(scaled: Tensor, rank: Tensor, half: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of V: the ranks determine the sets; the weights are ``exp(-d)``, normalised to sum 1."""
    nothing = torch.zeros(len(scaled), 1)
    crow, col, _ = torch.ops.ccfast.encode_neighbours(nothing, rank, torch.zeros(rank.shape), half, None, None, 0, None)
    row = torch.repeat_interleave(torch.arange(len(scaled)), crow.diff())
    weights = torch.exp(-scaled[row, col].double())
    sums = torch.zeros(len(scaled), dtype=torch.float64).index_add_(0, row, weights)
    return crow, col, (weights / sums[row]).float()
