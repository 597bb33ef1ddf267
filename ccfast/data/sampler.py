"""Batches of P clusters x K instances."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Sampler

#: Upper limit of augmentation seeds.
SEED_LIMIT = 2**31


class BatchSampler(Protocol):
    """``len(sampler)`` batches of ``(index, augmentation seed)``, each of ``batch_size`` images."""

    @property
    def batch_size(self) -> int:
        """The number of images in every batch."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[list[tuple[int, int]]]: ...


class ClusterSampler(Sampler[list[tuple[int, int]]]):
    """``iters`` batches of ``(index, augmentation seed)``: ``num_clusters`` clusters x ``num_instances`` instances.

    Clusters are drawn in a random order without replacement, so none is twice in a batch; the instances of a cluster
    are adjacent. The first instance of a cluster is drawn at random. The others come from other cameras than the first,
    if the cluster has any, or else from its other members; without replacement if there are enough. If there are fewer
    than ``num_clusters`` clusters, every batch has all of them. Each pass over the sampler draws from ``generator``;
    the seeds are passed with the indices, so augmentation is the same with any number of workers.

    Args:
        labels: [N] pseudo-labels; -1 (noise) is never drawn.
        cams: [N] cameras, or None.
    """

    def __init__(
        self,
        labels: Tensor,
        cams: Tensor | None,
        *,
        num_clusters: int,
        num_instances: int,
        iters: int,
        generator: torch.Generator,
    ) -> None:
        self.members = _members(labels.cpu())
        if not self.members:
            raise ValueError("labels: expected at least one cluster, got only noise (-1)")
        self.cams = None if cams is None else cams.cpu()
        self.num_clusters = min(num_clusters, len(self.members))
        self.num_instances = num_instances
        self.iters = iters
        self.generator = generator

    @property
    def batch_size(self) -> int:
        """The number of images in every batch."""
        return self.num_clusters * self.num_instances

    def __len__(self) -> int:
        return self.iters

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        deck: list[int] = []
        for _ in range(self.iters):
            if len(deck) < self.num_clusters:
                deck = self._shuffled(len(self.members)).tolist()
            drawn = [deck.pop() for _ in range(self.num_clusters)]
            indices = torch.cat([self._instances(self.members[cluster]) for cluster in drawn])
            seeds = torch.randint(SEED_LIMIT, indices.shape, generator=self.generator)
            yield list(zip(indices.tolist(), seeds.tolist(), strict=True))

    def _shuffled(self, count: int) -> Tensor:
        return torch.randperm(count, generator=self.generator)

    def _instances(self, members: Tensor) -> Tensor:
        """``num_instances`` of one cluster's ``members``."""
        first = members[self._shuffled(len(members))[:1]]
        pool = self._other_views(members, first)
        wanted = self.num_instances - 1
        if len(pool) >= wanted:
            others = pool[self._shuffled(len(pool))[:wanted]]
        else:
            others = pool[torch.randint(len(pool), (wanted,), generator=self.generator)]
        return torch.cat([first, others])

    def _other_views(self, members: Tensor, first: Tensor) -> Tensor:
        """Members from other cameras than ``first``'s; if there are none, the other members, or else ``first``."""
        if self.cams is not None:
            elsewhere = members[self.cams[members] != self.cams[first]]
            if len(elsewhere):
                return elsewhere
        others = members[members != first]
        return others if len(others) else first


class FillingSampler(ClusterSampler):
    """The same with batches of ``size`` images, filled class by class; a class with one image appears once.

    If most classes have one image, ``num_instances`` images per class would be mostly repetitions. Classes come in a
    random order, which is drawn again when all have been used; the last class of a batch may be cut off.
    """

    def __init__(self, *labels_and_cams: Tensor | None, size: int, **options: Any) -> None:
        super().__init__(*labels_and_cams, **options)
        self.size = size

    @property
    def batch_size(self) -> int:
        """The number of images in every batch."""
        return self.size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        deck: list[int] = []
        for _ in range(self.iters):
            drawn: list[int] = []
            while len(drawn) < self.size:
                deck = deck or self._shuffled(len(self.members)).tolist()
                members = self.members[deck.pop()]
                drawn += (members if len(members) == 1 else self._instances(members)).tolist()
            seeds = torch.randint(SEED_LIMIT, (self.size,), generator=self.generator)
            yield list(zip(drawn, seeds.tolist(), strict=False))


def _members(labels: Tensor) -> list[Tensor]:
    """The indices of each cluster's members; noise is left out."""
    clustered = (labels >= 0).nonzero()[:, 0]
    _, cluster, sizes = labels[clustered].unique(return_inverse=True, return_counts=True)
    return list(clustered[cluster.argsort(stable=True)].split(sizes.tolist()))
