"""Re-ranking and ranking evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ccfast import _arguments as arguments
from ccfast import _checks as checks
from ccfast._types import RankingMetrics
from ccfast.ops.jaccard import fake_csr


def k_reciprocal_rerank(query: Any, gallery: Any, k1: int = 20, k2: int = 6, lambda_value: float = 0.3) -> Tensor:
    """Re-ranking with k-reciprocal encoding (Zhong et al., CVPR 2017, equation 12).

    Args:
        query: ``[Q, D]`` float32, any finite values.
        gallery: ``[G, D]`` float32.
        k1: neighbours without the row itself, ``1 <= k1 < Q + G``.
        k2: rows averaged by the query expansion, ``1 <= k2 <= k1``; 1 skips it.
        lambda_value: share of the original distance, in ``[0, 1]``.

    Returns:
        ``[Q, G]`` float32 distances ``(1 - lambda) * Jaccard + lambda * d``, where d is the squared Euclidean distance
        divided by the query's largest distance to any row.

    Raises:
        TypeError: a tensor of another dtype or layout.
        ValueError: an empty input, a different number of columns, an argument out of range, non-finite rows.

    Examples:
        >>> import torch, ccfast
        >>> query = torch.tensor([[0.0, 0.0]])
        >>> gallery = torch.tensor([[0.1, 0.0], [5.0, 5.0], [0.2, 0.1]])
        >>> ccfast.k_reciprocal_rerank(query, gallery, k1=2, k2=1).argsort().tolist()
        [[0, 2, 1]]
    """
    return torch.ops.ccfast.k_reciprocal_rerank(*arguments.k_reciprocal_rerank(query, gallery, k1, k2, lambda_value))


def rerank_in_blocks(
    query: Tensor, gallery: Tensor, k1: int, k2: int, lambda_value: float, heights: Sequence[int]
) -> Iterator[Tensor]:
    """The rows of :func:`k_reciprocal_rerank` in blocks of these ``heights``, without a matrix of all rows.

    :func:`k_reciprocal_rerank` has checked the arguments.
    """
    encoding = torch.ops.ccfast.rerank_encoding(query.detach(), gallery.detach(), k1, k2)
    first = 0
    for height in heights:
        end = first + height
        yield torch.ops.ccfast.reranked_distances(*encoding, len(query), lambda_value, first, end)
        first = end


def evaluate_ranking(
    distances: Any,
    query_ids: Any,
    gallery_ids: Any,
    query_cams: Any = None,
    gallery_cams: Any = None,
    max_rank: int = 50,
    junk_id: int | None = None,
) -> RankingMetrics:
    """mAP, CMC and mINP by the Market-1501 protocol (Zheng et al., ICCV 2015).

    Gallery entries with the query's identity and camera are left out; then queries without a match do not count.
    Average precision equals scikit-learn's ``average_precision_score``. Equal distances are ranked by gallery index.

    Args:
        distances: ``[Q, G]`` of any floating-point dtype; smaller is nearer, infinity is allowed.
        query_ids: ``[Q]`` integers of any type: a tensor, an array or a list.
        gallery_ids: ``[G]`` integers.
        query_cams: ``[Q]`` integers, or None together with ``gallery_cams``: nothing is left out.
        gallery_cams: ``[G]`` integers, or None.
        max_rank: length of the CMC curve, at most a million or the gallery.
        junk_id: identity of junk, which counts neither as a match nor as a miss; None: no junk. Market-1501 marks junk
            with -1 (``junk_id=-1``); by default -1 is an ordinary identity. Junk queries do not count.

    Returns:
        :class:`RankingMetrics`: ``mAP``, ``cmc [max_rank]`` float64, ``mINP`` (Ye et al., TPAMI 2021), all in [0, 1].

    Raises:
        TypeError: a tensor of another dtype or layout.
        ValueError: an empty input, different lengths, NaN distances, one camera argument without the other, no query
            with a match.

    Examples:
        >>> import torch, ccfast
        >>> distances = torch.tensor([[0.2, 0.1, 0.9], [0.8, 0.3, 0.1]])
        >>> metrics = ccfast.evaluate_ranking(distances, torch.tensor([7, 8]), torch.tensor([7, 9, 8]), max_rank=2)
        >>> metrics.mAP, metrics.cmc.tolist()
        (0.75, [0.5, 1.0])
    """
    distances, query_ids, gallery_ids, query_cams, gallery_cams, max_rank, junk_id = arguments.evaluate_ranking(
        distances, query_ids, gallery_ids, query_cams, gallery_cams, max_rank, junk_id
    )
    per_query = rank_queries(distances, query_ids, gallery_ids, query_cams, gallery_cams, junk_id)
    return mean_over_queries(*per_query, max_rank)


def rank_queries(
    distances: Tensor,
    query_ids: Tensor,
    gallery_ids: Tensor,
    query_cams: Tensor | None,
    gallery_cams: Tensor | None,
    junk_id: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """For each query its average precision, the rank from 0 of its first match (-1: no match), and its term of mINP.

    :func:`evaluate_ranking` has checked the arguments.
    """
    return torch.ops.ccfast.evaluate_ranking(distances, query_ids, gallery_ids, query_cams, gallery_cams, junk_id)


def mean_over_queries(precision: Tensor, first_match: Tensor, inverse_penalty: Tensor, max_rank: int) -> RankingMetrics:
    """The metrics from what :func:`rank_queries` gives, for all queries together."""
    counted = first_match >= 0
    count = int(counted.sum())
    if count == 0:
        raise ValueError(checks.NO_MATCH)
    ranks = first_match[counted & (first_match < max_rank)]
    cmc = torch.bincount(ranks, minlength=max_rank).to(torch.float64).cumsum(0) / count
    return RankingMetrics(float(precision.sum()) / count, cmc, float(inverse_penalty.sum()) / count)


@torch.library.register_fake("ccfast::k_reciprocal_rerank")
def _(query: Tensor, gallery: Tensor, k1: int, k2: int, lambda_value: float) -> Tensor:
    return query.new_empty((query.shape[0], gallery.shape[0]))


@torch.library.register_fake("ccfast::rerank_encoding")
def _(query: Tensor, gallery: Tensor, k1: int, k2: int) -> tuple[Tensor, ...]:
    count = query.shape[0] + gallery.shape[0]
    rows, norms = query.new_empty((count, query.shape[1])), query.new_empty(count)
    return rows, norms, torch.empty_like(norms), *fake_csr(query, count)


@torch.library.register_fake("ccfast::reranked_distances")
def _(
    rows: Tensor,
    norms: Tensor,
    inverse_farthest: Tensor,
    crow: Tensor,
    col: Tensor,
    values: Tensor,
    queries: int,
    lambda_value: float,
    row_begin: int,
    row_end: int,
) -> Tensor:
    return rows.new_empty((row_end - row_begin, rows.shape[0] - queries))


@torch.library.register_fake("ccfast::evaluate_ranking")
def _(
    distances: Tensor,
    query_ids: Tensor,
    gallery_ids: Tensor,
    query_cams: Tensor | None,
    gallery_cams: Tensor | None,
    junk_id: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    queries = distances.shape[0]
    return (
        distances.new_empty(queries, dtype=torch.float64),
        distances.new_empty(queries, dtype=torch.int64),
        distances.new_empty(queries, dtype=torch.float64),
    )
