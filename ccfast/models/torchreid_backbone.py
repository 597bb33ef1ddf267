"""OSNet (Zhou et al., ICCV 2019) by the optional package torchreid: ``--arch torchreid/osnet_x1_0``."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ccfast._errors import InputError
from ccfast._optional import import_optional
from ccfast.models.encoder import Backbone
from ccfast.models.resnet import IMAGENET_MEAN, IMAGENET_STD
from ccfast.models.weights import StateDict, load_weights

PREFIX = "torchreid/"


def torchreid_backbone(arch: str, weights: str, state: StateDict | None, size: tuple[int, int]) -> Backbone:
    """An OSNet of torchreid; ``weights``: "none"; ``state`` is loaded if given. Images can have any size."""
    if weights != "none":
        raise InputError(f"--weights: expected none or a file that exists with --arch {arch}, got {weights}")
    models: Any = import_optional("torchreid", f"--arch {arch}").models
    name = arch.removeprefix(PREFIX)
    try:
        network = models.build_model(name, num_classes=1, pretrained=False)
    except KeyError as error:
        raise InputError(f"--arch {arch}: torchreid has no model {name!r}") from error
    if not hasattr(network, "featuremaps"):
        raise InputError(f"--arch {arch}: expected a network that gives feature maps, such as torchreid/osnet_x1_0")
    maps = _Maps(network)
    if state is not None:
        load_weights(maps.network, state, arch)
    return Backbone(maps, network.conv5.conv.out_channels, IMAGENET_MEAN, IMAGENET_STD)


class _Maps(nn.Module):
    """Feature maps [B, D, h, w] of an OSNet, whose own pooling, fully connected layer and classifier are dropped."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        network.global_avgpool, network.fc, network.classifier = nn.Identity(), nn.Identity(), nn.Identity()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.network.featuremaps(images)
        return maps
