"""HHCL (Hu et al. 2021): each cluster has a row of hard samples and a row of means, or several sample rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

import ccfast
from ccfast.methods.method import Method, centroids

if TYPE_CHECKING:
    from ccfast.training.shard import Shard


class HHCL(Method):
    """The memory is :class:`ccfast.nn.DualMemory`, or :class:`ccfast.nn.InstanceMemory` for ``CMhybrid_v2``.

    The initial value of all rows of a cluster is its normalised mean. ``CMhybrid_v2`` has ``--num-instances`` sample
    rows.
    """

    memories = ("CMhybrid", "CM", "CMhard", "CMhybrid_v2")
    shards = True

    #: w of the loss.
    hard_weight = 0.5
    #: e of the labels' smoothing.
    label_smoothing = 0.0

    memory: ccfast.nn.InstanceMemory | ccfast.nn.DualMemory

    def start_epoch(self, features: Tensor | Shard, labels: Tensor, epoch: int) -> None:
        """A memory filled with the clusters' normalised means."""
        config, rows = self.config, centroids(features, labels)
        options: dict[str, Any] = {
            "temperature": config.temperature,
            "momentum": config.momentum,
            "hard_weight": self.hard_weight,
            "label_smoothing": self.label_smoothing,
        }
        clusters, columns = rows.shape
        if config.memory == "CMhybrid_v2":
            instances = ccfast.nn.InstanceMemory(
                columns, clusters, config.num_instances, centroid=True, normalize=False, **options
            ).to(features.device)
            instances.features.copy_(rows.repeat(1 + config.num_instances, 1))
            self.memory = instances
        else:
            halves = ccfast.nn.DualMemory.hhcl(columns, clusters, self._mode, **options).to(features.device)
            halves.fill(rows)
            self.memory = halves

    def criterion(self, features: Tensor, targets: Tensor, indices: Tensor) -> Tensor:
        """The weighted cross-entropies over the rows of each kind."""
        return self.memory(features, targets)
