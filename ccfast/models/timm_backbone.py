"""Any convolutional network of timm (optional package) as a backbone: ``--arch timm/NAME``."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ccfast._errors import InputError
from ccfast.models.efficientnet_lite import MEAN, STD, is_efficientnet_lite_pytorch, to_timm_names
from ccfast.models.encoder import Backbone
from ccfast.models.weights import StateDict, load_weights

PREFIX = "timm/"


def timm_backbone(arch: str, weights: str, state: StateDict | None) -> Backbone:
    """``arch``: "timm/NAME"; ``weights``: "none" or "imagenet" (timm's, downloaded); ``state`` is loaded if given."""
    if weights not in ("none", "imagenet"):
        raise InputError(f"--weights: expected none, imagenet or a file that exists, got {weights}")
    network = _create(arch, pretrained=weights == "imagenet")
    mean, std = tuple(network.pretrained_cfg["mean"]), tuple(network.pretrained_cfg["std"])
    if state is not None:
        if is_efficientnet_lite_pytorch(state):
            state, mean, std = to_timm_names(state, network.state_dict()), MEAN, STD
        load_weights(network, state, arch)
    return Backbone(_Maps(network, arch), network.num_features, mean, std)


def _create(arch: str, pretrained: bool) -> Any:
    try:
        import timm
    except ImportError as error:
        raise InputError(f"--arch {arch} needs timm, which is not installed: pip install 'ccfast[timm]'") from error
    name = arch.removeprefix(PREFIX)
    if not timm.is_model(name):
        raise InputError(f"--arch {arch}: timm {timm.__version__} has no model {name!r}")
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0, global_pool="")
    except Exception as error:  # the download's errors are of many kinds
        if not pretrained:
            raise InputError(f"--arch {arch}: timm could not make it: {error}") from error
        raise InputError(
            f"--weights imagenet: the weights of {arch} could not be downloaded ({error}); "
            "pass a file with --weights FILE, or --weights none to start from random weights"
        ) from error


class _Maps(nn.Module):
    """The network's feature maps [B, D, h, w]; networks that give something else are refused."""

    def __init__(self, network: Any, arch: str) -> None:
        super().__init__()
        self.network = network
        self.arch = arch

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.network.forward_features(images)
        if maps.dim() != 4 or maps.shape[1] != self.network.num_features:
            raise InputError(
                f"--arch {self.arch}: expected feature maps [B, {self.network.num_features}, h, w] to pool, "
                f"got {list(maps.shape)}; choose a convolutional network"
            )
        return maps
