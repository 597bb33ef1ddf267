"""torchvision's ResNets as re-ID backbones: the last stage keeps its resolution."""

from __future__ import annotations

from typing import Any

from torch import nn

from ccfast._errors import InputError
from ccfast._optional import import_optional
from ccfast.models.encoder import Backbone
from ccfast.models.weights import StateDict, load_weights

RESNETS = ("resnet18", "resnet50")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
#: What the authors trained from, and so what "imagenet" means here.
PUBLISHED_WEIGHTS = "IMAGENET1K_V1"


def resnet(arch: str, weights: str, state: StateDict | None) -> Backbone:
    """``weights``: "none", "imagenet" or a name of torchvision's (IMAGENET1K_V2); ``state`` is loaded if given."""
    network = _build(arch, PUBLISHED_WEIGHTS if weights == "imagenet" else weights)
    num_features = network.fc.in_features
    network = _keep_resolution(network)
    maps = nn.Sequential()
    for name, child in network.named_children():
        if name not in ("avgpool", "fc"):
            maps.add_module(name, child)
    if state is not None:
        load_weights(maps, state, arch)
    return Backbone(maps, num_features, IMAGENET_MEAN, IMAGENET_STD)


def _build(arch: str, weights: str) -> Any:
    models = import_optional("torchvision.models", f"--arch {arch}")
    builder = getattr(models, arch)
    if weights == "none":
        return builder(weights=None)
    names = list(models.get_model_weights(builder).__members__)
    if weights not in names:
        raise InputError(f"--weights: expected none, imagenet, {', '.join(names)} or a file that exists, got {weights}")
    try:
        return builder(weights=weights)
    except (OSError, RuntimeError) as error:  # no network, or a download whose hash is wrong
        raise InputError(
            f"--weights: {weights} could not be downloaded ({error}); "
            "pass a file with --weights FILE, or --weights none to start from random weights"
        ) from error


def _keep_resolution(network: Any) -> Any:
    """Stride 1 in layer4 (Luo et al., CVPRW 2019, section 3.5): twice the resolution in both directions."""
    for module in network.layer4[0].modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
    return network
