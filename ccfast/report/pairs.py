"""Pairs of images that the clustering most likely has wrong: near ones in two clusters, far ones in one."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

import ccfast

#: How many pairs of each kind are shown, and how many neighbours of an image are looked at.
SHOWN, NEIGHBOURS = 8, 20


@dataclass(frozen=True)
class Pair:
    """Two rows, their squared Euclidean distance, and their clusters."""

    first: int
    second: int
    distance: float
    clusters: tuple[int, int]


def near_across(features: Tensor, labels: Tensor) -> list[Pair]:
    """The nearest pairs of images in two clusters, each image and each two clusters once; nearest first.

    Args:
        features: [N, D] of unit norm.
        labels: [N] on the CPU; -1 is no cluster.
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
    """Of the clusters with the largest distances inside: the image that is farthest from the centre, and the one that
    is farthest from that; farthest first.

    Args:
        distances: [N] from the centre of an image's cluster, on the CPU; NaN where there is none.
    """
    pairs = []
    for label in range(int(labels.max()) + 1):
        members = (labels == label).nonzero()[:, 0]
        outer = int(members[distances[members].argmax()])
        rows = features[members.to(features.device)]
        apart = (rows - features[outer]).pow(2).sum(1).cpu()
        pairs.append(Pair(outer, int(members[apart.argmax()]), float(apart.max()), (label, label)))
    return sorted(pairs, key=lambda pair: -pair.distance)[:SHOWN]
