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
    """A module from inputs [B, channels, H, W] to maps [B, num_features, h, w], with the normalisation of its inputs.

    ``pooled``: it returns vectors [B, num_features] instead, like transformers.
    """

    module: nn.Module
    num_features: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pooled: bool = False


class Encoder(nn.Module):
    """Images to features of unit norm; the same features are used for clustering, for the loss and for search.

    The inputs' mean and standard deviation are buffers, so a checkpoint always has the right values. The backbone runs
    channels-last, the fastest layout for convolutions on CPUs and GPUs (EfficientNet-Lite0 on a CPU: 1.6 times as fast
    in training, 4 times in extraction).

    Args:
        backbone: see :class:`Backbone`.
        height, width: size of the inputs.
        pooling: "gem" or "average"; without effect if the backbone is ``pooled``.
        projection: length of the features after a linear layer before the neck (without bias, which the neck's mean
            would cancel); 0: the backbone's own length, without this layer.
        freeze_bn: the backbone's BatchNorm layers use their running statistics in training, and do not change them.
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

        For a backbone with three channels, a single channel is repeated by broadcasting against the mean.
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
    """``encoder(images)`` with BatchNorm over groups of about ``group`` images ("ghost" BatchNorm); 0: all images.

    Only BatchNorm combines the images of a batch, so running the groups one after the other gives each group its own
    statistics. The published accuracy was reached with groups of 64: 256 images on four GPUs with DataParallel, which
    keeps the statistics of the first replica and discards the others. In the same way, the running statistics follow
    only the first group: a step updates them once, by the layer's momentum, for any number of groups. A group has at
    least two images, which BatchNorm needs.
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
    """BatchNorm layers in training mode use the statistics of each batch, but neither update nor count it.

    A momentum of 0 would still count it, and layers without a momentum use this count for their average.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
    try:
        for layer in layers:
            layer.track_running_stats = False
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True
