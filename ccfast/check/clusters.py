"""Clusters: DBSCAN, InfoMap, and the centroids of their clusters."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import torch
from torch import Tensor

import ccfast
from ccfast.check import eager
from ccfast.check.inputs import clustered, duplicates, identical, signs, symmetric_distances, to_csr
from ccfast.check.neighbours import EPS, K1, K2, real_features
from ccfast.check.speed import Size, Speed
from ccfast.check.trial import Trial, short

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def trials() -> Iterator[Trial]:
    """All of the family."""
    yield from _clusterings()
    for name, features in (
        ("clustered", clustered(150, noise=0.8)[0]),
        ("ties", signs(97)),
        ("duplicates", identical(9)),
    ):
        yield Trial("infomap", name, _infomap, (features,))
    rows, ids = clustered(211, dim=37)
    for dtype, allowed in ((torch.float32, 2e-7), (torch.float64, 1e-15)):
        given = (rows.to(dtype), ids.where(torch.arange(211) % 7 > 0, -1))
        yield Trial("cluster_centroids", short(dtype), _centroids, given, allowed)
    yield Trial("cluster_centroids", "noise alone", _centroids, (rows, torch.full((211,), -1)))


def speeds(size: Size) -> list[Speed]:
    """All of the family."""
    sizes = f"N={size.images:,}"

    def features(device: torch.device) -> tuple[Tensor]:
        return (real_features(size, device),)

    def distances(device: torch.device) -> tuple[Tensor]:
        return (ccfast.jaccard_distance(real_features(size, device), K1, K2),)

    def labelled(device: torch.device) -> tuple[Tensor, Tensor]:
        rows = real_features(size, device)
        return rows, (torch.arange(size.images, device=device) * 7) % (size.identities + 1) - 1

    return [
        Speed(
            "dbscan", f"{sizes} eps={EPS} dense", distances,
            lambda d: ccfast.dbscan(d, EPS), lambda d: eager.dbscan(d, EPS),
        ),
        Speed("infomap", f"{sizes} D={size.dim:,}", features, lambda x: ccfast.infomap(x, min_similarity=0.1), None),
        Speed(
            "cluster_centroids", f"{sizes} D={size.dim:,} C={size.identities}", labelled,
            ccfast.cluster_centroids, eager.cluster_centroids,
        ),
    ]  # fmt: skip


def _clusterings() -> Iterator[Trial]:
    for dtype in DTYPES:
        title = short(dtype)
        yield Trial(
            "dbscan", f"{title}, distances at eps", _dbscan(0.25, 4), (symmetric_distances(levels=8).to(dtype),)
        )
    for rows in (duplicates(170), clustered(203, dim=16, noise=0.4)[0], signs(97)):
        distances = (1 - rows @ rows.T).clamp_min(0)
        for least in (1, 3, 6):
            title = f"{len(rows)} rows, at least {least}"
            yield Trial("dbscan", title, _dbscan(0.3, least), (distances,))
            yield Trial("dbscan", f"{title}, sparse", _dbscan(0.3, least), (to_csr(distances, distances <= 0.4),))
    yield Trial("dbscan", "one chain", _dbscan(1.0, 2), (_chain(257),))
    yield Trial("dbscan", "infinite distances", _dbscan(0.5, 2), (_chain(33).masked_fill(_chain(33) > 0.4, torch.inf),))


def _chain(count: int) -> Tensor:
    """Distances of points in a row, in an order that jumps: a cluster of many steps."""
    places = (torch.arange(count) * 101 % count).float()
    return (places[:, None] - places).abs()


def _dbscan(eps: float, min_samples: int):
    return lambda package, distances: package.dbscan(distances, eps, min_samples)


def _infomap(package: ModuleType, features: Tensor) -> Tensor:
    return package.infomap(features, k1=9, min_similarity=0.3, min_cluster_size=3)


def _centroids(package: ModuleType, features: Tensor, labels: Tensor) -> Tensor:
    return package.cluster_centroids(features, labels)
