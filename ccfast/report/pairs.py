"""Pairs of images that are most likely clustered wrongly: near images in two clusters, far images in one."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

import ccfast

#: Number of shown pairs of each kind, and number of neighbours that are examined per image.
SHOWN, NEIGHBOURS = 8, 20


@dataclass(frozen=True)
class Pair:
    """Two rows, their squared Euclidean distance, and their clusters."""

    first: int
    second: int
    distance: float
    clusters: tuple[int, int]


def near_across(features: Tensor, labels: Tensor) -> list[Pair]:
    """The nearest pairs of images in two clusters, nearest first; each image and each pair of clusters appears once.

    Args:
        features: [N, D] of unit norm.
        labels: [N] on the CPU; -1 means no cluster.
    """
    kept = (labels >= 0).nonzero()[:, 0]
    if len(labels[kept].unique()) < 2:
        return []
    neighbours, distances = (
        found.cpu() for found in ccfast.knn(features[kept.to(features.device)], min(NEIGHBOURS, len(kept)))
    )
    first = kept[:, None].expand_as(neighbours).flatten()
    second, distance = kept[neighbours].flatten(), distances.flatten()
    across = labels[first] != labels[second]
    first, second, distance = first[across], second[across], distance[across]
    pairs: list[Pair] = []
    used: set[object] = set()
    for place in distance.argsort(stable=True).tolist():
        one, two = sorted((int(first[place]), int(second[place])))
        clusters = int(labels[one]), int(labels[two])
        names = {one, two, ("clusters", min(clusters), max(clusters))}
        if not names & used:
            used |= names
            pairs.append(Pair(one, two, float(distance[place]), clusters))
        if len(pairs) == SHOWN:
            break
    return pairs


def far_within(features: Tensor, labels: Tensor, distances: Tensor) -> list[Pair]:
    """For the clusters with the largest distances inside: the image farthest from the centre, and the image farthest
    from that one; the largest distance first.

    Args:
        distances: [N] from the centre of an image's cluster, on the CPU; NaN for images in no cluster.
    """
    pairs = []
    for label in range(int(labels.max()) + 1):
        members = (labels == label).nonzero()[:, 0]
        outer = int(members[distances[members].argmax()])
        rows = features[members.to(features.device)]
        apart = (rows - features[outer]).pow(2).sum(1).cpu()
        pairs.append(Pair(outer, int(members[apart.argmax()]), float(apart.max()), (label, label)))
    return sorted(pairs, key=lambda pair: -pair.distance)[:SHOWN]
