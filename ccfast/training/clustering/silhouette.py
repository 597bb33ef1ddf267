"""The mean silhouette of a clustering with cosine distances, which needs no identities."""

from __future__ import annotations

import torch
from torch import Tensor

#: The mean is over at most this number of images; each is compared with all clusters.
IMAGES = 2_000

#: Number of similarities in memory at the same time.
HELD = 2**24


def silhouette(features: Tensor, labels: Tensor, limit: int = IMAGES) -> float | None:
    """Rousseeuw's silhouette (1987) of ``features`` [N, D] of unit norm by cosine distances, in [-1, 1].

    The mean of ``(b - a) / max(a, b)`` over at most ``limit`` clustered images (spread evenly): ``a`` is the mean
    distance to the other images of the cluster, ``b`` the mean distance to the images of the nearest other cluster; 0
    for clusters of one image. The mean cosine distance to a cluster equals the distance to the mean of its rows, so
    each image is compared with each cluster once. Images with the label -1 are left out.

    Returns:
        None if there are fewer than two clusters.
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
