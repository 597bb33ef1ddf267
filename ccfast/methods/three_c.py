"""3C (2024): Cluster Contrast in which the cameras decide about the updates and the weights of the clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

import ccfast
from ccfast.methods.method import Method, centroids

if TYPE_CHECKING:
    from ccfast.training.shard import Shard


class ThreeC(Method):
    """The memory is :class:`ccfast.nn.CameraMemory`; its initial rows are the means of the clusters."""

    memories = ("hd_camera", "cm", "cm_hard", "cm_camera", "cm_hard_camera", "tccl_camera")
    shards = True
    needs_cameras = True

    #: Weight the clusters by the entropy of their cameras in the batch.
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
        """Weighted softmax cross-entropy over the clusters."""
        assert self.cameras is not None
        return self.memory(features, targets, self.cameras[indices])
