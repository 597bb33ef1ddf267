"""Step 6 of an epoch: mAP and CMC on query and gallery, and the agreement of clusters with the true identities."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ccfast import _checks as checks
from ccfast._errors import InputError
from ccfast.ops.retrieval import mean_over_queries, rank_queries, rerank_in_blocks

if TYPE_CHECKING:
    from ccfast.data import Comparison, Part, Protocol, ReIDData

log = logging.getLogger(__name__)

#: Reported ranks of the CMC.
RANKS = (1, 5, 10)

#: Published options of re-ranking (Zhong et al. 2017).
K1, K2 = 20, 6

#: Number of distances in memory at the same time: 64 MiB.
DISTANCES = 2**24

Metrics = dict[str, float]

#: Identities, and cameras where there are any.
Labels = tuple[Tensor, "Tensor | None"]


@dataclass(frozen=True)
class Reranking:
    """Options of :func:`ccfast.k_reciprocal_rerank`; None for ``k1`` and ``k2`` means 20 and 6, or all images."""

    k1: int | None = None
    k2: int | None = None
    lambda_value: float = 0.3


def evaluate(
    data: ReIDData, query_features: Tensor, gallery_features: Tensor, rerank: bool | Reranking = False
) -> Metrics:
    """mAP, rank1, rank5, rank10 and mINP in [0, 1], for each of the data set's protocols.

    The metrics of the main protocol have these names; those of a further protocol begin with its name:
    ``clothes_changing/mAP``. Further protocols without any match (:func:`obstacles`) are left out. Distances are held
    for one block of queries at a time.

    Args:
        data: a data set with query and gallery.
        query_features, gallery_features: [Q, D] and [G, D], rows of unit norm.
        rerank: k-reciprocal re-ranking, among the images of each trial.

    Raises:
        InputError: no query has a match in the gallery in the main protocol; options of re-ranking out of range.
    """
    reranking = Reranking() if rerank is True else rerank or None
    against = obstacles(data)
    metrics: Metrics = {}
    for number, (name, protocol) in enumerate(data.protocols.items()):
        if name in against and number:
            continue
        if name in against:
            raise InputError(f"query and gallery cannot be evaluated: {against[name]}")
        trials = [
            _trial(trial, protocol, data, query_features, gallery_features, reranking) for trial in protocol.trials
        ]
        prefix = f"{name}/" if number else ""
        metrics |= {prefix + key: value for key, value in _weighted_mean(trials, [1] * len(trials)).items()}
    return metrics


def obstacles(data: ReIDData) -> dict[str, str]:
    """Maps each protocol that cannot be evaluated to the reason; "" means all, if query or gallery is missing."""
    missing = [name for name, part in (("query", data.query), ("gallery", data.gallery)) if part is None]
    if missing:
        return {"": f"there is no {' and no '.join(missing)}"}
    assert data.query is not None and data.gallery is not None
    unknown = [name for name, part in (("query", data.query), ("gallery", data.gallery)) if part.ids is None]
    if unknown:
        return dict.fromkeys(data.protocols, f"the identities of the {' and the '.join(unknown)} are unknown")
    return {
        name: _why_no_match(data)
        for name, protocol in data.protocols.items()
        if not all(any(len(rows_with_match(data, comparison)) for comparison in trial) for trial in protocol.trials)
    }


def _why_no_match(data: ReIDData) -> str:
    assert data.query is not None and data.gallery is not None
    if not set(data.query.ids.tolist()) & set(data.gallery.ids.tolist()):
        return f"{checks.NO_QUERY_MATCHES}: no identity of the query is in the gallery"
    if data.query.cams is None:
        return checks.NO_QUERY_MATCHES
    return (
        f"{checks.NO_QUERY_MATCHES}: images of a query's identity and camera do not count, and there are no others; "
        "--ignore-cameras counts them (in Python: pass None as cameras)"
    )


def rows_with_match(data: ReIDData, comparison: Comparison) -> Tensor:
    """The comparison's queries that have a match in its gallery."""
    assert data.query is not None and data.gallery is not None
    query, gallery = _labels(data.query, comparison.query), _labels(data.gallery, comparison.gallery)
    return comparison.query[_has_match(query, gallery)]


def _trial(
    trial: tuple[Comparison, ...],
    protocol: Protocol,
    data: ReIDData,
    query_features: Tensor,
    gallery_features: Tensor,
    reranking: Reranking | None,
) -> Metrics:
    """The mean over all queries of a trial with a match."""
    queries = torch.cat([comparison.query for comparison in trial]).unique()
    images = torch.cat([comparison.gallery for comparison in trial]).unique()
    searches = [
        Search(data, rows, comparison.gallery, queries, images, protocol.distinct_identities)
        for comparison in trial
        if len(rows := rows_with_match(data, comparison))
    ]
    query, gallery = _take(query_features, queries), _take(gallery_features, images)
    try:
        for first, distances in _blocks(query, gallery, reranking):
            for search in searches:
                search.measure(first, distances)
            del distances  # free the memory before the next block
    except ValueError as error:
        raise InputError(f"query and gallery cannot be evaluated: {error}") from error
    return _weighted_mean([search.metrics() for search in searches], [len(search.rows) for search in searches])


def _blocks(query: Tensor, gallery: Tensor, reranking: Reranking | None) -> Iterator[tuple[int, Tensor]]:
    """The first row of each block of queries, and the block's distances to the whole gallery.

    The blocks have nearly equal heights, because the last bits of a product can depend on a small height.
    """
    parts = query.tensor_split(min(len(query), -(-len(query) * len(gallery) // DISTANCES)))
    heights = [len(part) for part in parts]
    if reranking is None:
        blocks = ((2 * part @ gallery.T).neg_().add_(2) for part in parts)
    else:
        k1, k2 = neighbours_of_reranking(len(query) + len(gallery), reranking)
        blocks = rerank_in_blocks(query, gallery, k1, k2, reranking.lambda_value, heights)
    for first in accumulate(heights[:-1], initial=0):
        yield first, next(blocks)  # not zip, which keeps a block until the next one exists


def neighbours_of_reranking(images: int, reranking: Reranking) -> tuple[int, int]:
    """k1 and k2 for ``images`` of query and gallery together."""
    most = images - 1
    if most < 1:
        raise InputError(f"--rerank: expected at least 2 images of query and gallery together, got {images}")
    k1 = min(K1, most) if reranking.k1 is None else reranking.k1
    if k1 > most:
        raise InputError(
            f"--rerank-k1: expected at most {most}, one less than the {images} images of query and gallery, got {k1}"
        )
    k2 = min(K2, k1) if reranking.k2 is None else reranking.k2
    if k2 > k1:
        raise InputError(f"--rerank-k2: expected at most {k1} (--rerank-k1), got {k2}")
    if k1 < K1 and reranking.k1 is None:
        log.warning("re-ranking with k1 = %d instead of %d: query and gallery have %d images", k1, K1, images)
    return k1, k2


class Search:
    """The queries ``rows`` of a comparison, ranked block by block.

    ``queries`` and ``images``: the rows of query and gallery of the distances, ascending.
    """

    def __init__(
        self, data: ReIDData, rows: Tensor, gallery: Tensor, queries: Tensor, images: Tensor, distinct: bool
    ) -> None:
        assert data.query is not None and data.gallery is not None
        self.rows, self.columns = torch.searchsorted(queries, rows), torch.searchsorted(images, gallery)
        self.query, self.gallery = _labels(data.query, rows), _labels(data.gallery, gallery)
        self.distinct = distinct
        self.found: list[tuple[Tensor, ...]] = []

    def measure(self, first: int, distances: Tensor) -> None:
        """Rank the queries ``first``, ``first`` + 1, ... by their ``distances`` [q, G]."""
        inside = ((self.rows >= first) & (self.rows < first + len(distances))).nonzero()[:, 0]
        if not len(inside):
            return
        block = _take(_take(distances, self.rows[inside] - first), self.columns, dim=1)
        columns = (_some(self.query[0], inside), self.gallery[0], _some(self.query[1], inside), self.gallery[1])
        labels = [None if column is None else column.to(distances.device) for column in columns]
        results = list(rank_queries(block, *labels))
        if self.distinct:
            results.append(_ranks_of_identities(block, *labels))
        self.found.append((inside, *results))

    def metrics(self) -> Metrics:
        """Means over the queries."""
        places, *columns = (torch.cat(blocks) for blocks in zip(*self.found, strict=True))
        order = places.argsort().to(columns[0].device)
        precision, first_match, penalty, *of_identities = (column[order] for column in columns)
        ranking = mean_over_queries(precision, first_match, penalty, max(RANKS))
        cmc = mean_over_queries(precision, of_identities[0], penalty, max(RANKS)).cmc if of_identities else ranking.cmc
        ranks = {f"rank{rank}": float(cmc[rank - 1]) for rank in RANKS}
        return {"mAP": float(ranking.mAP), **ranks, "mINP": float(ranking.mINP)}


def _some(column: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if column is None else column[rows]


def _take(matrix: Tensor, rows: Tensor, dim: int = 0) -> Tensor:
    """Some rows of a matrix (or columns: ``dim`` 1); without a copy if these are all rows in order."""
    if torch.equal(rows, torch.arange(matrix.shape[dim])):
        return matrix
    return matrix.index_select(dim, rows.to(matrix.device))


def _labels(part: Part, rows: Tensor) -> Labels:
    assert part.ids is not None
    return part.ids[rows], None if part.cams is None else part.cams[rows]


def _has_match(query: Labels, gallery: Labels) -> Tensor:
    """For each query whether the gallery has its identity from another camera (if there are cameras)."""
    (query_ids, query_cams), (gallery_ids, gallery_cams) = query, gallery
    shown = Counter(gallery_ids.tolist())
    if query_cams is None or gallery_cams is None:
        return torch.tensor([shown[identity] > 0 for identity in query_ids.tolist()], dtype=torch.bool)
    left_out = Counter(zip(gallery_ids.tolist(), gallery_cams.tolist(), strict=True))
    keys = zip(query_ids.tolist(), query_cams.tolist(), strict=True)
    return torch.tensor([shown[identity] > left_out[identity, camera] for identity, camera in keys], dtype=torch.bool)


def _ranks_of_identities(
    distances: Tensor, query_ids: Tensor, gallery_ids: Tensor, query_cams: Tensor | None, gallery_cams: Tensor | None
) -> Tensor:
    """Ranks [q] among identities, sorted by the distance of their nearest image, and for ties by number."""
    if query_cams is not None and gallery_cams is not None:
        same = (query_ids[:, None] == gallery_ids) & (query_cams[:, None] == gallery_cams)
        distances = distances.masked_fill(same, torch.inf)
    identities, column = gallery_ids.unique(return_inverse=True)
    nearest = distances.new_full((len(distances), len(identities)), torch.inf)
    nearest.scatter_reduce_(1, column.expand_as(distances), distances, "amin")
    return rank_queries(nearest, query_ids, identities, None, None)[1]


def _weighted_mean(metrics: list[Metrics], weights: list[int]) -> Metrics:
    if len(metrics) == 1:
        return metrics[0]
    return {
        key: sum(weight * one[key] for weight, one in zip(weights, metrics, strict=True)) / sum(weights)
        for key in metrics[0]
    }


def agreement(labels: Tensor, ids: Tensor | None) -> Metrics:
    """NMI, ARI and purity of the clusters with the true identities, over the images that are not noise.

    Purity is the share of images with the most frequent identity of their cluster. The result is empty if identities
    are unknown, if there are fewer than two, or if no image is clustered.
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
    from sklearn.metrics.cluster import contingency_matrix

    labels = labels.cpu()
    kept = labels >= 0
    if ids is None or not kept.any() or len(torch.unique(ids)) < 2:
        return {}
    found, true = labels[kept].numpy(), ids[kept].numpy()
    return {
        "nmi": float(normalized_mutual_info_score(true, found)),
        "ari": float(adjusted_rand_score(true, found)),
        "purity": float(contingency_matrix(true, found, sparse=True).max(axis=0).sum() / len(found)),
    }
