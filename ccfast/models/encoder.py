"""The encoder: backbone, pooling, BatchNorm neck, unit norm (the published recipe of Cluster Contrast)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ccfast.models.pooling import make_pooling


@dataclass(frozen=True)
class Backbone:
    """A module from inputs [B, channels, H, W] to maps [B, num_features, h, w], and how its inputs are normalised.

    ``pooled``: to vectors [B, num_features] instead, as transformers give them.
    """

    module: nn.Module
    num_features: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pooled: bool = False


class Encoder(nn.Module):
    """Images to features of unit norm; the same features are clustered, learnt from and searched with.

    The inputs' mean and standard deviation are buffers: a checkpoint cannot be read with the wrong ones. The backbone
    runs channels-last, the layout that convolutions are fastest in on both devices (EfficientNet-Lite0 on a CPU: 1.6
    times as fast to train, 4 times to extract).

    Args:
        backbone: see :class:`Backbone`.
        height, width: size of the inputs.
        pooling: "gem" or "average"; nothing is left to pool where the backbone is ``pooled``.
        projection: length of the features, by a linear layer before the neck (whose mean makes a bias idle); 0 for the
            backbone's own, without that layer.
        freeze_bn: the backbone's BatchNorm layers use their running statistics while training, and leave them.
    """

    input_mean: Tensor
    input_std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        *,
        height: int,
        width: int,
        pooling: str,
        projection: int = 0,
        freeze_bn: bool = False,
    ) -> None:
        super().__init__()
        self.num_features = projection or backbone.num_features
        self.height, self.width = height, width
        self.freeze_bn = freeze_bn
        self.backbone = backbone.module.to(memory_format=torch.channels_last)
        self.pool = nn.Identity() if backbone.pooled else make_pooling(pooling)
        self.projection = nn.Linear(backbone.num_features, projection, bias=False) if projection else nn.Identity()
        self.neck = nn.BatchNorm1d(self.num_features)
        self.neck.bias.requires_grad_(False)
        self.register_buffer("input_mean", torch.tensor(backbone.mean)[:, None, None])
        self.register_buffer("input_std", torch.tensor(backbone.std)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W], uint8 or floats in [0, 1], to [B, D] of unit norm.

        One channel is repeated, by broadcasting against the mean, for a backbone that takes three.
        """
        scaled = images.float() / 255 if images.dtype == torch.uint8 else images
        inputs = ((scaled - self.input_mean) / self.input_std).contiguous(memory_format=torch.channels_last)
        maps = self.backbone(inputs)
        return F.normalize(self.neck(self.projection(self.pool(maps))), dim=1)

    def train(self, mode: bool = True) -> Encoder:
        """As usual, but frozen BatchNorm layers stay in evaluation mode."""
        super().train(mode)
        if self.freeze_bn:
            for module in self.backbone.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self


def encode_in_groups(encoder: nn.Module, images: Tensor, group: int) -> Tensor:
    """``encoder(images)`` where BatchNorm sees groups of about ``group`` images ("ghost" BatchNorm); 0 for all at once.

    BatchNorm is the only place where images of a batch meet, so running the groups one after the other gives each
    its own statistics. The published accuracy was reached with groups of 64: 256 images on four GPUs by DataParallel.
    As there, where the first replica's statistics are kept and the others' discarded, the running statistics follow
    the first group alone: a step moves them once, by the layer's momentum, however many groups there are. A group has
    two images at least, as BatchNorm needs them.
    """
    count = max(1, min(round(len(images) / group), len(images) // 2)) if group else 1
    if count == 1:
        return encoder(images)
    first, *others = images.tensor_split(count)
    features = [encoder(first)]
    with _running_statistics_left_alone(encoder):
        features += [encoder(part) for part in others]
    return torch.cat(features)


@contextmanager
def _running_statistics_left_alone(module: nn.Module) -> Iterator[None]:
    """BatchNorm layers in training mode use each batch's statistics, but neither update nor count it.

    A momentum of 0 would still count it, which is what the average of layers without a momentum goes by.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
    try:
        for layer in layers:
            layer.track_running_stats = False
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True
