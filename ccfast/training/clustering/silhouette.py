"""The mean silhouette of a clustering by cosine distances: a number that needs no identities."""

from __future__ import annotations

import torch
from torch import Tensor

#: The mean is taken over at most this many images; each is compared with all clusters.
IMAGES = 2_000

#: Similarities that are held at a time.
HELD = 2**24


def silhouette(features: Tensor, labels: Tensor, limit: int = IMAGES) -> float | None:
    """Rousseeuw's silhouette (1987) of ``features`` [N, D] of unit norm by cosine distances, in [-1, 1].

    The mean, over at most ``limit`` images that are in a cluster (spread evenly), of ``(b - a) / max(a, b)``: ``a`` is
    the mean distance to the other images of the cluster, ``b`` that to the images of the nearest other cluster; 0 for
    clusters of one image. The mean of cosine distances to a cluster is that to the mean of its rows, so that each image
    meets each cluster once. Images whose label [N] is -1 are left out.

    Returns:
        None where there are fewer than two clusters.
    """
    inside = (labels >= 0).nonzero()[:, 0]
    numbers, own = labels[inside].unique(return_inverse=True)
    clusters, rows = len(numbers), features[inside].float()
    if clusters < 2:
        return None
    sizes = own.bincount(minlength=clusters).to(rows.dtype)
    sums = rows.new_zeros(clusters, rows.shape[1]).index_add_(0, own, rows)
    chosen = torch.linspace(0, len(inside) - 1, min(limit, len(inside)), dtype=torch.float64).round().long()
    parts = chosen.to(features.device).split(max(1, HELD // clusters))
    total = sum(float(_of(rows[part], own[part], sums, sizes).double().sum()) for part in parts)
    return total / len(chosen)


def _of(rows: Tensor, own: Tensor, sums: Tensor, sizes: Tensor) -> Tensor:
    """The silhouette of each of ``rows``, whose clusters are ``own``."""
    similar = rows @ sums.T
    with_own = similar.gather(1, own[:, None])[:, 0]
    size = sizes[own]
    within = 1 - (with_own - rows.square().sum(1)) / (size - 1).clamp(min=1)
    between = (1 - similar / sizes).scatter(1, own[:, None], torch.inf).amin(1)
    largest = torch.maximum(within, between)
    value = torch.where(largest > 0, (between - within) / largest, torch.zeros_like(largest))
    return torch.where(size > 1, value, torch.zeros_like(value))
