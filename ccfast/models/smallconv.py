"""A small convolutional backbone for images of a few pixels."""

from __future__ import annotations

from torch import nn

from ccfast.models.encoder import Backbone

WIDTHS = (32, 64, 128)


def smallconv(channels: int) -> Backbone:
    """Three 3x3 convolutions, the last two at half and a quarter of the size; 93 thousand parameters."""
    layers: list[nn.Module] = []
    before = channels
    for depth, width in enumerate(WIDTHS):
        stride = 1 if depth == 0 else 2
        layers += [
            nn.Conv2d(before, width, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        ]
        before = width
    return Backbone(nn.Sequential(*layers), before, mean=(0.0,) * channels, std=(1.0,) * channels)
