"""Cluster Contrast (Dai et al., ACCV 2022): one row per cluster, a softmax over all clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

import ccfast
from ccfast.methods.method import Method, centroids

if TYPE_CHECKING:
    from ccfast.training.shard import Shard


class ClusterContrast(Method):
    """The memory of an epoch is :class:`ccfast.nn.ClusterMemory`; its initial rows are the means of the clusters."""

    memories = ("sequential", "hardest", "mean")
    shards = True

    def start_epoch(self, features: Tensor | Shard, labels: Tensor, epoch: int) -> None:
        """A memory ``[C, D]`` of the clusters' normalised means."""
        config, rows = self.config, centroids(features, labels)
        self.memory = ccfast.nn.ClusterMemory(
            rows.shape[1], len(rows), config.temperature, config.momentum, self._mode
        ).to(features.device)
        self.memory.features.copy_(rows)

    def criterion(self, features: Tensor, targets: Tensor, indices: Tensor) -> Tensor:
        """Softmax cross-entropy over the clusters."""
        return self.memory(features, targets)
