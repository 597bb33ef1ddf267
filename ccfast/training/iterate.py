"""Steps 4 and 5 of an epoch: the memory from the clusters, and the iterations against it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import ccfast
from ccfast._errors import RunError
from ccfast.models import Encoder, encode_in_groups
from ccfast.training import sharded
from ccfast.training.config import TrainConfig
from ccfast.training.group import ALONE, Group
from ccfast.training.precision import Precision
from ccfast.training.shard import Shard

DIVERGED = "the run has diverged (try a smaller --lr or a larger --temperature)"


def new_memory(features: Tensor | Shard, labels: Tensor, config: TrainConfig) -> nn.Module:
    """A memory [C, D] whose rows are the clusters' normalised means."""
    if isinstance(features, Shard):
        centroids = sharded.centroids(features, labels)
    else:
        centroids = ccfast.cluster_centroids(features, labels)
    memory = ccfast.nn.ClusterMemory(
        centroids.shape[1], len(centroids), config.temperature, config.momentum, config.memory
    ).to(features.device)
    memory.features.copy_(centroids)
    return memory


class InGroups(nn.Module):
    """The encoder as a step runs it: one call for the whole batch, as DistributedDataParallel needs it."""

    def __init__(self, encoder: Encoder, bn_group: int) -> None:
        super().__init__()
        self.encoder, self.bn_group = encoder, bn_group

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] to [B, D]."""
        return encode_in_groups(self.encoder, images, self.bn_group)


@dataclass(frozen=True)
class Batches:
    """An epoch's batches of ``size`` images: this process's slices, (images [b, C, H, W], their indices [b])."""

    loader: Iterable[tuple[Tensor, Tensor]]
    size: int


def iterate(
    encoder: Encoder,
    memory: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    labels: Tensor,
    bn_group: int,
    group: Group = ALONE,
    precision: Precision | None = None,
) -> float:
    """One pass over ``batches``; ``labels`` [N] are the clusters of all images. Returns the mean loss.

    ``precision``: of the encoder's forward pass; float32 without one.
    """
    device = labels.device
    precision = precision or Precision()
    scaler = precision.scaler
    encode = group.parallel(InGroups(encoder, bn_group), device)
    encoder.train()
    memory.train()
    total, count = torch.zeros((), device=device), 0
    for images, indices in batches.loader:
        targets = group.gather(labels[indices.to(device, non_blocking=True)], batches.size)
        features = precision(encode, images.to(device, non_blocking=True))
        features = group.gather(features, batches.size)
        try:
            loss = memory(features, targets)
        except ValueError as error:  # on the CPU the ops refuse features that are not finite
            raise RunError(f"{DIVERGED}: {error}") from error
        optimizer.zero_grad(set_to_none=True)
        # Every process has the loss of the whole batch and the gradient of its slice; DDP takes the mean of these.
        scaler.scale(loss * group.size).backward()
        scaler.step(optimizer)
        scaler.update()
        total, count = total + loss.detach(), count + 1
    mean = float(total) / count
    if not torch.isfinite(total):
        raise RunError(f"{DIVERGED}: the loss became {mean}")
    return mean
