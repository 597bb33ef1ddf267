"""Step 6: mAP and CMC on query and gallery, and how well clusters match the true identities."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import torch
from torch import Tensor

import ccfast
from ccfast import _checks as checks
from ccfast._errors import InputError

if TYPE_CHECKING:
    from ccfast.data import Comparison, Part, Protocol, ReIDData

#: Ranks of the CMC that are reported.
RANKS = (1, 5, 10)

Metrics = dict[str, float]

#: Identities, and cameras where there are any.
Labels = tuple[Tensor, "Tensor | None"]


def evaluate(data: ReIDData, query_features: Tensor, gallery_features: Tensor, rerank: bool = False) -> Metrics:
    """mAP, rank1, rank5, rank10 and mINP in [0, 1], by each of the data set's protocols.

    The main protocol's have these names, those of a further one begin with its own: ``clothes_changing/mAP``.

    Args:
        data: a data set with query and gallery.
        query_features, gallery_features: [Q, D] and [G, D], rows of unit norm.
        rerank: k-reciprocal re-ranking first, among the images of a trial.

    Raises:
        InputError: no query of a trial has a match in the gallery.
    """
    metrics: Metrics = {}
    for name, protocol in data.protocols.items():
        prefix = f"{name}/" if metrics else ""
        trials = [_trial(trial, protocol, data, query_features, gallery_features, rerank) for trial in protocol.trials]
        metrics |= {prefix + key: value for key, value in _weighted_mean(trials, [1] * len(trials)).items()}
    return metrics


def _trial(
    trial: tuple[Comparison, ...],
    protocol: Protocol,
    data: ReIDData,
    query_features: Tensor,
    gallery_features: Tensor,
    rerank: bool,
) -> Metrics:
    """The mean over all queries of a trial that have a match."""
    assert data.query is not None and data.gallery is not None
    queries = torch.cat([comparison.query for comparison in trial]).unique()
    images = torch.cat([comparison.gallery for comparison in trial]).unique()
    distances = _distances(_take(query_features, queries), _take(gallery_features, images), rerank)
    measured, counts = [], []
    for comparison in trial:
        gallery = _labels(data.gallery, comparison.gallery)
        rows = comparison.query[_has_match(_labels(data.query, comparison.query), gallery)]
        if len(rows):
            block = _take(distances, torch.searchsorted(queries, rows))
            block = _take(block, torch.searchsorted(images, comparison.gallery), dim=1)
            measured.append(_rank(block, _labels(data.query, rows), gallery, protocol.distinct_identities))
            counts.append(len(rows))
    if not measured:
        raise InputError(f"query and gallery cannot be evaluated: {checks.NO_MATCH}")
    return _weighted_mean(measured, counts)


def _distances(query: Tensor, gallery: Tensor, rerank: bool) -> Tensor:
    return ccfast.k_reciprocal_rerank(query, gallery) if rerank else 2 - 2 * query @ gallery.T


def _take(matrix: Tensor, rows: Tensor, dim: int = 0) -> Tensor:
    """Some rows of a matrix (or columns: ``dim`` 1); without a copy where these are all of them in order."""
    if torch.equal(rows, torch.arange(matrix.shape[dim])):
        return matrix
    return matrix.index_select(dim, rows.to(matrix.device))


def _labels(part: Part, rows: Tensor) -> Labels:
    assert part.ids is not None
    return part.ids[rows], None if part.cams is None else part.cams[rows]


def _has_match(query: Labels, gallery: Labels) -> Tensor:
    """Of each query whether the gallery shows its identity in another camera (where there are cameras at all)."""
    (query_ids, query_cams), (gallery_ids, gallery_cams) = query, gallery
    shown = Counter(gallery_ids.tolist())
    if query_cams is None or gallery_cams is None:
        return torch.tensor([shown[identity] > 0 for identity in query_ids.tolist()])
    left_out = Counter(zip(gallery_ids.tolist(), gallery_cams.tolist(), strict=True))
    keys = zip(query_ids.tolist(), query_cams.tolist(), strict=True)
    return torch.tensor([shown[identity] > left_out[identity, camera] for identity, camera in keys])


def _rank(distances: Tensor, query: Labels, gallery: Labels, distinct_identities: bool) -> Metrics:
    columns = (query[0], gallery[0], query[1], gallery[1])
    on_device = [None if column is None else column.to(distances.device) for column in columns]
    try:
        ranking = ccfast.evaluate_ranking(distances, *on_device)
        cmc = _cmc_of_identities(distances, *on_device) if distinct_identities else ranking.cmc
    except ValueError as error:
        raise InputError(f"query and gallery cannot be evaluated: {error}") from error
    ranks = {f"rank{rank}": float(cmc[rank - 1]) for rank in RANKS}
    return {"mAP": float(ranking.mAP), **ranks, "mINP": float(ranking.mINP)}


def _cmc_of_identities(
    distances: Tensor, query_ids: Tensor, gallery_ids: Tensor, query_cams: Tensor | None, gallery_cams: Tensor | None
) -> Tensor:
    """The CMC over identities, each at the distance of its nearest image; equal ones in the order of their numbers."""
    if query_cams is not None and gallery_cams is not None:
        same = (query_ids[:, None] == gallery_ids) & (query_cams[:, None] == gallery_cams)
        distances = distances.masked_fill(same, torch.inf)
    identities, column = gallery_ids.unique(return_inverse=True)
    nearest = distances.new_full((len(distances), len(identities)), torch.inf)
    nearest.scatter_reduce_(1, column.expand_as(distances), distances, "amin")
    return ccfast.evaluate_ranking(nearest, query_ids, identities).cmc


def _weighted_mean(metrics: list[Metrics], weights: list[int]) -> Metrics:
    if len(metrics) == 1:
        return metrics[0]
    return {
        key: sum(weight * one[key] for weight, one in zip(weights, metrics, strict=True)) / sum(weights)
        for key in metrics[0]
    }


def agreement(labels: Tensor, ids: Tensor | None) -> Metrics:
    """NMI, ARI and purity of the clusters with the true identities, over the images that are not noise.

    Purity is the share of images that have the most frequent identity of their cluster. Empty where the identities say
    nothing: unknown, fewer than two of them, or no clustered image.
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
