"""3C (2024): Cluster Contrast with clusters that are updated and weighed with an eye to their cameras."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

import ccfast
from ccfast.methods.method import Method, centroids

if TYPE_CHECKING:
    from ccfast.training.shard import Shard


class ThreeC(Method):
    """The memory is :class:`ccfast.nn.CameraMemory`, its first rows the means of the clusters."""

    memories = ("hd_camera", "cm", "cm_hard", "cm_camera", "cm_hard_camera", "tccl_camera")
    shards = True
    needs_cameras = True

    #: Weigh clusters by the entropy of their cameras in the batch.
    reweight = True

    def start_epoch(self, features: Tensor | Shard, labels: Tensor, epoch: int) -> None:
        """A memory ``[C, D]`` of the clusters' normalised means."""
        config, rows = self.config, centroids(features, labels)
        self.memory = ccfast.nn.CameraMemory(
            rows.shape[1],
            len(rows),
            config.temperature,
            config.momentum,
            mode=self._mode,
            reweight=self.reweight,
        ).to(features.device)
        self.memory.features.copy_(rows)

    def criterion(self, features: Tensor, targets: Tensor, indices: Tensor) -> Tensor:
        """Softmax cross-entropy over the clusters, weighed."""
        assert self.cameras is not None
        return self.memory(features, targets, self.cameras[indices])
