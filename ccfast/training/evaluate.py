"""Step 6: mAP and CMC on query and gallery, and how well clusters match the true identities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

import ccfast
from ccfast._errors import InputError

if TYPE_CHECKING:
    from ccfast.data import Part

#: Ranks of the CMC that are reported.
RANKS = (1, 5, 10)


def evaluate(
    query: Part, gallery: Part, query_features: Tensor, gallery_features: Tensor, rerank: bool = False
) -> dict[str, float]:
    """mAP, rank1, rank5, rank10 and mINP in [0, 1], by the Market-1501 protocol; without cameras where there are none.

    Args:
        query_features, gallery_features: [Q, D] and [G, D], rows of unit norm.
        rerank: k-reciprocal re-ranking first.
    """
    device = query_features.device
    if rerank:
        distances = ccfast.k_reciprocal_rerank(query_features, gallery_features)
    else:
        distances = 2 - 2 * query_features @ gallery_features.T
    columns = [query.ids, gallery.ids, query.cams, gallery.cams]
    try:
        ranking = ccfast.evaluate_ranking(distances, *(None if c is None else c.to(device) for c in columns))
    except ValueError as error:
        raise InputError(f"query and gallery cannot be evaluated: {error}") from error
    ranks = {f"rank{rank}": float(ranking.cmc[rank - 1]) for rank in RANKS}
    return {"mAP": float(ranking.mAP), **ranks, "mINP": float(ranking.mINP)}


def agreement(labels: Tensor, ids: Tensor) -> dict[str, float]:
    """NMI and ARI of the clusters with the true identities, over the images that are not noise.

    Empty where the identities say nothing: fewer than two of them, or no clustered image.
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    labels = labels.cpu()
    kept = labels >= 0
    if not kept.any() or len(torch.unique(ids)) < 2:
        return {}
    found, true = labels[kept].numpy(), ids[kept].numpy()
    return {
        "nmi": float(normalized_mutual_info_score(true, found)),
        "ari": float(adjusted_rand_score(true, found)),
    }
