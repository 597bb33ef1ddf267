"""Cluster memory as a module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ccfast import _checks as checks
from ccfast.ops.contrastive import centroid_contrastive_loss
from ccfast.ops.memory import MODES, update_memory_from


class ClusterMemory(nn.Module):
    """One normalised feature per cluster: the loss against all of them, then a momentum update (Cluster Contrast).

    Args:
        num_features: D.
        num_clusters: C.
        temperature: of the loss, above 0.
        momentum: share of the old row that stays in an update, in ``[0, 1]``.
        mode: of :func:`ccfast.update_memory_`: ``"sequential"``, ``"hardest"`` or ``"mean"``.

    Attributes:
        features: buffer ``[C, D]`` float32; zeros until filled, as by ``memory.features.copy_(centroids)`` or by
            assigning the result of :func:`ccfast.cluster_centroids`.

    Raises:
        ValueError: an argument out of range.
    """

    features: Tensor

    def __init__(
        self,
        num_features: int,
        num_clusters: int,
        temperature: float = 0.05,
        momentum: float = 0.1,
        mode: str = "sequential",
    ) -> None:
        super().__init__()
        num_features = checks.integer("num_features", num_features, low=1)
        num_clusters = checks.integer("num_clusters", num_clusters, low=1)
        self.temperature = checks.real("temperature", temperature, low=0, ends="(]")
        self.momentum = checks.real("momentum", momentum, low=0, high=1)
        self.mode = checks.choice("mode", mode, MODES)
        self.register_buffer("features", torch.zeros(num_clusters, num_features))

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of a batch; in training mode with gradients enabled the memory is then updated from the batch.

        Args:
            inputs: ``[B, D]`` features, of any norm: they are normalised here.
            targets: ``[B]`` pseudo-labels in ``[0, C)``; -1 (noise) counts neither in the loss nor in the update.

        Returns:
            The scalar loss, float32, taken against the memory as it was before the update.
        """
        loss = centroid_contrastive_loss(inputs, self.features, targets, self.temperature)
        if self.training and torch.is_grad_enabled():
            features = inputs.detach().to(self.features.dtype)
            update_memory_from(self.features, features, targets, self.momentum, self.mode, normalize=True)
        return loss

    def extra_repr(self) -> str:
        """Sizes and options, for ``print(module)``."""
        clusters, features = self.features.shape
        return (
            f"num_features={features}, num_clusters={clusters}, temperature={self.temperature}, "
            f"momentum={self.momentum}, mode={self.mode!r}"
        )
