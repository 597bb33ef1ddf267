"""Instance-batch normalisation, IBN-a of Pan et al., "Two at Once" (ECCV 2018).

Early layers encode differences between cameras and domains; in half of their channels these are normalised away.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ccfast.models.weights import StateDict, not_downloaded

_RELEASE = "https://github.com/XingangPan/IBN-Net/releases/download/v1.0/"
#: The networks with ImageNet weights from the authors, and the names of the files.
WITH_IBN = {
    "resnet18_ibn_a": "resnet18_ibn_a-2f571257.pth",
    "resnet34_ibn_a": "resnet34_ibn_a-94bc1577.pth",
    "resnet50_ibn_a": "resnet50_ibn_a-d9d0bb7b.pth",
    "resnet101_ibn_a": "resnet101_ibn_a-59ea0ac6.pth",
}


class IBN(nn.Module):
    """InstanceNorm for the first half of the channels, BatchNorm for the others.

    The attributes are named as in the released weights: ``bn1.IN.weight``, ``bn1.BN.running_mean``.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.IN = nn.InstanceNorm2d(channels // 2, affine=True)
        self.BN = nn.BatchNorm2d(channels - channels // 2)

    def forward(self, maps: Tensor) -> Tensor:
        """[B, D, h, w] to the same shape."""
        instance, batch = maps.split([self.IN.num_features, self.BN.num_features], dim=1)
        return torch.cat([self.IN(instance.contiguous()), self.BN(batch.contiguous())], dim=1)


def add_ibn(network: Any) -> None:
    """Replace the first BatchNorm of every block in layers 1 to 3 of a ResNet by an :class:`IBN`."""
    for layer in (network.layer1, network.layer2, network.layer3):
        for block in layer:
            block.bn1 = IBN(block.bn1.num_features)


def published_state(arch: str) -> StateDict:
    """The released ImageNet weights of ``arch``, downloaded into torch's cache."""
    try:
        return torch.hub.load_state_dict_from_url(
            _RELEASE + WITH_IBN[arch], map_location="cpu", check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError) as error:  # no network, or a download with a wrong hash
        raise not_downloaded(f"--weights imagenet: the weights of {arch}", error) from error
