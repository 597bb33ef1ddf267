"""Cluster sheets: the images of clusters, and how pure the clusters are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: Clusters per group, and shown images per cluster.
SHOWN, IMAGES = 4, 16

#: Clusters in the single group if identities are unknown.
SHOWN_ALONE = 8


@dataclass(frozen=True)
class Cluster:
    """A cluster's label and size; if known, the most frequent identity, its share, and the number of identities.

    ``members`` are the rows to show, those of the majority first.
    """

    label: int
    size: int
    members: list[int]
    majority: int | None = None
    purity: float | None = None
    identities: int | None = None


@dataclass(frozen=True)
class Sheet:
    """A group of clusters with its title."""

    title: str
    clusters: list[Cluster]


def known(ids: Tensor | None) -> Tensor | None:
    """``ids`` if there are at least two identities, or else None."""
    return ids if ids is not None and len(torch.unique(ids)) >= 2 else None


def sizes(labels: Tensor) -> list[int]:
    """The size of each cluster, without noise (-1)."""
    return torch.bincount(labels[labels >= 0]).tolist()


def in_none(labels: Tensor, count: int) -> list[int]:
    """At most ``count`` of the rows in no cluster, evenly spaced."""
    return _spread((labels < 0).nonzero()[:, 0].tolist(), count)


def sheets(labels: Tensor, ids: Tensor | None, smallest: int) -> list[Sheet]:
    """The largest clusters, then the most mixed and the purest of the others with at least ``smallest`` images.

    Args:
        labels: [N] on the CPU, -1 for noise.
        ids: [N], or None if identities are unknown; then only the largest clusters.
    """
    ids = known(ids)
    clusters = [_cluster(label, labels, ids) for label in range(len(sizes(labels)))]
    clusters.sort(key=lambda cluster: (-cluster.size, cluster.label))
    if ids is None:
        return _sheets(("Largest", clusters[:SHOWN_ALONE]))
    largest, others = clusters[:SHOWN], [cluster for cluster in clusters[SHOWN:] if cluster.size >= smallest]
    by_purity = sorted(others, key=lambda cluster: cluster.purity)
    mixed = [cluster for cluster in by_purity if cluster.purity < 1][:SHOWN]
    purest = sorted((c for c in others if c not in mixed), key=lambda cluster: (-cluster.purity, -cluster.size))[:SHOWN]
    return _sheets(("Largest", largest), ("Most mixed of the others", mixed), ("Purest of the others", purest))


def _sheets(*groups: tuple[str, list[Cluster]]) -> list[Sheet]:
    return [Sheet(title, clusters) for title, clusters in groups if clusters]


def _cluster(label: int, labels: Tensor, ids: Tensor | None) -> Cluster:
    members = (labels == label).nonzero()[:, 0].tolist()
    if ids is None:
        return Cluster(label, len(members), _spread(members))
    identity = {row: int(ids[row]) for row in members}
    found, counts = torch.unique(ids[members], return_counts=True)
    count = dict(zip(found.tolist(), counts.tolist(), strict=True))
    members.sort(key=lambda row: (-count[identity[row]], identity[row], row))
    majority = identity[members[0]]
    return Cluster(label, len(members), _spread(members), majority, count[majority] / len(members), len(count))


def _spread(members: list[int], count: int = IMAGES) -> list[int]:
    """At most ``count`` of the members, evenly spaced, so that sorted identities are shown in proportion."""
    if len(members) <= count:
        return members
    return [members[number * len(members) // count] for number in range(count)]
