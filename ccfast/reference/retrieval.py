"""Test time: k-reciprocal re-ranking and the Market-1501 evaluation protocol."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ccfast import _arguments as arguments
from ccfast import _checks as checks
from ccfast._types import RankingMetrics
from ccfast.reference.jaccard import distance_from_overlap, encode, half_columns, inverted_index, overlaps
from ccfast.reference.knn import knn, with_subnormals

_BLOCK = 256


@with_subnormals()
def k_reciprocal_rerank(query: Tensor, gallery: Tensor, k1: int = 20, k2: int = 6, lambda_value: float = 0.3) -> Tensor:
    """Re-ranked distances of queries to gallery entries (Zhong et al. 2017, eq. 12).

    All rows together are encoded as in :func:`k_reciprocal_encoding`, with two differences, as in the authors' code:
    the lists have ``k1 + 1`` columns, and the weights are ``exp(-d)`` normalised to sum 1, where d is the squared
    Euclidean distance divided by the largest one in the row's own column,
    ``d(i, j) = |x_i - x_j|^2 / max_l |x_i - x_l|^2``. The result is ``(1 - lambda) * Jaccard + lambda * d``.

    Args:
        query: ``[Q, D]`` float32, finite, of any norm.
        gallery: ``[G, D]`` like ``query``.
        k1: neighbours without the row itself, at least 1, ``k1 + 1 <= Q + G``.
        k2: neighbours averaged in the query expansion, in ``[1, k1]``.
        lambda_value: weight of the original distance, in ``[0, 1]``.

    Returns:
        ``[Q, G]`` float32. If all points are equal, d is 0.

    Raises:
        TypeError: not a tensor, another dtype.
        ValueError: wrong shape, empty, different columns or devices, a number out of range, non-finite rows.
    """
    query, gallery, k1, k2, lambda_value = arguments.k_reciprocal_rerank(query, gallery, k1, k2, lambda_value)
    checks.finite_rows("query", query)
    checks.finite_rows("gallery", gallery)

    features = torch.cat([query, gallery])
    rank = knn(features, k1 + 1)[0].cpu().numpy()
    largest = _largest_squared_distances(features.double()).cpu().numpy()
    largest[largest == 0] = 1
    points = features.double().cpu().numpy()

    def scaled(i: int, columns: np.ndarray) -> np.ndarray:
        return ((points[columns] - points[i]) ** 2).sum(1) / largest[i]

    encoding = encode(rank, half_columns(k1), scaled, k2)
    index = inverted_index(encoding, len(encoding))
    in_gallery = np.arange(len(query), len(features))
    result = np.empty((len(query), len(gallery)), np.float32)
    for i in range(len(query)):
        jaccard = distance_from_overlap(overlaps(encoding[i], index))[in_gallery]
        original = scaled(i, in_gallery).astype(np.float32)
        result[i] = (1 - lambda_value) * jaccard + lambda_value * original
    return torch.from_numpy(result).to(query.device)


def _largest_squared_distances(points: Tensor) -> Tensor:
    """For each float64 row the largest squared distance to any row; the rows are centred to reduce cancellation."""
    centred = points - points.mean(0)
    norms = (centred**2).sum(1)
    blocks = zip(centred.split(_BLOCK), norms.split(_BLOCK), strict=True)
    return torch.cat([(own[:, None] + norms - 2 * (block @ centred.T)).amax(1) for block, own in blocks]).clamp_min(0)


def evaluate_ranking(
    distances: Tensor,
    query_ids: Tensor,
    gallery_ids: Tensor,
    query_cams: Tensor | None = None,
    gallery_cams: Tensor | None = None,
    max_rank: int = 50,
    junk_id: int | None = None,
) -> RankingMetrics:
    """mAP, CMC and mINP of a distance matrix by the protocol of Market-1501 (Zheng et al., ICCV 2015).

    For each query, gallery entries with its identity and its camera are left out. The rest is ranked by distance, and
    for ties by index. Then queries without a match do not count.

    Args:
        distances: ``[Q, G]`` float32 or float64 (half precision is read as float32). +inf is allowed, NaN is not.
        query_ids, gallery_ids: ``[Q]`` and ``[G]`` integers of any type: tensors, arrays or lists.
        query_cams, gallery_cams: ``[Q]`` and ``[G]`` integers, or both None for data without cameras.
        max_rank: length of the CMC curve, at most a million or the gallery.
        junk_id: identity of junk, which counts neither as a match nor as a miss; None: no junk. Market-1501 marks junk
            with -1 (``junk_id=-1``); by default -1 is an ordinary identity. Junk queries do not count.

    Returns:
        :class:`RankingMetrics`: ``mAP`` as in scikit-learn's ``average_precision_score``, where tied distances share
        one threshold; ``cmc`` by the first match (constant beyond the gallery's size); ``mINP``.

    Raises:
        TypeError: not a tensor, another dtype.
        ValueError: wrong shape, empty, different lengths or devices, only one of the cameras, ``max_rank`` below 1,
            NaN, or no query with a match.
    """
    scores, query_ids, gallery_ids, query_cams, gallery_cams, max_rank, junk_id = arguments.evaluate_ranking(
        distances, query_ids, gallery_ids, query_cams, gallery_cams, max_rank, junk_id
    )
    checks.numbers("distances", scores)

    matches = query_ids[:, None] == gallery_ids[None, :]
    kept = torch.ones_like(matches)
    if query_cams is not None and gallery_cams is not None:
        kept = ~(matches & (query_cams[:, None] == gallery_cams[None, :]))
    if junk_id is not None:
        kept = kept & (gallery_ids != junk_id)
    rows = zip(scores.cpu().numpy(), matches.cpu().numpy(), kept.cpu().numpy(), strict=True)

    average_precisions, first_ranks, penalties = [], [], []
    for score, match, keep in rows:
        score, match = score[keep], match[keep]
        if not match.any():
            continue
        order = np.argsort(score, kind="stable")
        score, match = score[order], match[order]
        ranks = np.flatnonzero(match) + 1
        average_precisions.append(average_precision(score, match))
        first_ranks.append(ranks[0])
        penalties.append(len(ranks) / ranks[-1])
    if not average_precisions:
        raise ValueError(checks.NO_MATCH)
    cmc = (np.array(first_ranks)[:, None] <= np.arange(1, max_rank + 1)).mean(0)
    return RankingMetrics(
        float(np.mean(average_precisions)), torch.from_numpy(cmc).to(scores.device), float(np.mean(penalties))
    )


def average_precision(score: np.ndarray, match: np.ndarray) -> float:
    """Sum over the distinct thresholds of precision times the step in recall; ``score`` ascending."""
    last_of_ties = np.append(score[1:] != score[:-1], True)
    found = np.cumsum(match)[last_of_ties]
    precision = found / (np.flatnonzero(last_of_ties) + 1)
    recall_steps = np.diff(found, prepend=0) / found[-1]
    return float((precision * recall_steps).sum())
