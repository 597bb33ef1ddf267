"""Shared by the visible-infrared methods (ADCA, PGM): two memories, and both modalities in every batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import ccfast
from ccfast._errors import InputError
from ccfast._words import counted
from ccfast.data import ReIDData
from ccfast.data.sampler import SEED_LIMIT, BatchSampler
from ccfast.methods.method import Method

if TYPE_CHECKING:
    from ccfast.training.clustering.pseudo_labels import Clustering


class CrossModal(Method):
    """Each modality is clustered separately and has its own memory.

    The labels of the infrared clusters begin after those of the visible ones. Half of the clusters of a batch are
    visible and half infrared. Their images alternate, so that each group of BatchNorm has both modalities.
    """

    memories = ("sequential", "hardest", "mean")
    needs_modalities = True

    #: Number of augmentations of each visible image in a batch.
    visible_views = 1

    def prepare(self, data: ReIDData) -> None:
        """Find the infrared images; refuse too few images of a modality, and batches that cannot be halved."""
        config, infrared = self.config, data.is_infrared()
        self.infrared = infrared.to(self.device)
        for kind, count in (("visible", int((~infrared).sum())), ("infrared", int(infrared.sum()))):
            if config.k1 > count:
                raise InputError(
                    f"--k1: expected at most the {counted(count, f'{kind} training image')}, got {config.k1}"
                )
        if config.clusters_per_batch % 2:
            raise InputError(
                f"--batch-size: expected a multiple of twice --num-instances ({2 * config.num_instances}) with "
                f"--method {config.method}, whose batches are half visible and half infrared, got {config.batch_size}"
            )

    def pseudo_labels(self, features: Tensor, cluster: Clustering) -> Tensor:
        """The visible clusters, and then the infrared ones."""
        labels = torch.full((len(features),), -1, device=features.device)
        labels[~self.infrared] = cluster(features[~self.infrared], "visible image")
        self.num_visible = int(labels.max()) + 1
        found = cluster(features[self.infrared], "infrared image")
        labels[self.infrared] = torch.where(found >= 0, found + self.num_visible, -1)
        return labels

    def start_epoch(self, features: Tensor, labels: Tensor, epoch: int) -> None:
        """Both memories, filled with the clusters' normalised means."""
        config, centroids = self.config, ccfast.cluster_centroids(features, labels)
        visible, infrared = centroids[: self.num_visible], centroids[self.num_visible :]
        self.memory = ccfast.nn.CrossModalMemory(
            centroids.shape[1],
            len(visible),
            len(infrared),
            config.temperature,
            config.momentum,
            mode=self._mode,
        ).to(features.device)
        self.memory.visible.features.copy_(visible)
        self.memory.infrared.features.copy_(infrared)

    def own_labels(self, labels: Tensor, infrared: Tensor) -> tuple[Tensor, Tensor]:
        """The visible and the infrared clusters of images with these ``labels``; -1 for the other modality."""
        clustered = labels >= 0
        visible = torch.where(clustered & ~infrared, labels, -1)
        return visible, torch.where(clustered & infrared, labels - self.num_visible, -1)

    def sampler(self, labels: Tensor, iters: int, generator: torch.Generator) -> BatchSampler:
        """Batches of both modalities."""
        visible, infrared = (
            self.clusters(torch.where(kind, labels, -1), iters, generator, share=2)
            for kind in (~self.infrared, self.infrared)
        )
        return BothKinds(visible, infrared, self.visible_views, generator)

    def criterion(self, features: Tensor, targets: Tensor, indices: Tensor) -> Tensor:
        """The sum of both memories' losses; for each memory the images of the other modality are noise."""
        visible, infrared = self.own_labels(targets, self.infrared[indices])
        return self.memory(features, features, visible, infrared, **self.cross())

    def cross(self) -> dict[str, Any]:
        """The arguments of :class:`ccfast.nn.CrossModalMemory` for the cross term; empty: no such term."""
        return {}


class BothKinds(BatchSampler):
    """Joins the batches of two samplers: their images alternate, each visible image ``views`` times in a batch."""

    def __init__(self, visible: BatchSampler, infrared: BatchSampler, views: int, generator: torch.Generator) -> None:
        self.visible, self.infrared, self.views, self.generator = visible, infrared, views, generator

    @property
    def batch_size(self) -> int:
        """The number of images in every batch."""
        return self.views * self.visible.batch_size + self.infrared.batch_size

    def __len__(self) -> int:
        return len(self.visible)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for visible, infrared in zip(self.visible, self.infrared, strict=True):
            again = [index for _ in range(1, self.views) for index, _ in visible]
            seeds = torch.randint(SEED_LIMIT, (len(again),), generator=self.generator).tolist()
            yield alternating([*visible, *zip(again, seeds, strict=True)], infrared)


def alternating(first: list[Any], second: list[Any]) -> list[Any]:
    """Both lists in one, each in its order and spread evenly."""
    placed = [
        ((place + 0.5) / len(items), kind, item)
        for kind, items in enumerate((first, second))
        for place, item in enumerate(items)
    ]
    return [item for _, _, item in sorted(placed, key=lambda entry: entry[:2])]
