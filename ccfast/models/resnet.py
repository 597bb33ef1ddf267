"""torchvision's ResNets as re-ID backbones, also with IBN; the last stage keeps its resolution."""

from __future__ import annotations

from typing import Any

from torch import nn

from ccfast._errors import InputError
from ccfast._optional import import_optional
from ccfast.models.encoder import Backbone
from ccfast.models.ibn import WITH_IBN, add_ibn, published_state
from ccfast.models.weights import StateDict, load_weights, not_downloaded

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
#: The weights from which the authors trained; "imagenet" means these.
IMAGENET_WEIGHTS = "IMAGENET1K_V1"

#: InstanceNorm needs more than one position in layer3, whose stride is 16.
_LEAST_SIZE_OF_IBN = 17


def resnet(arch: str, weights: str, state: StateDict | None, size: tuple[int, int]) -> Backbone:
    """A ResNet for images of ``size`` (height, width).

    ``arch``: one of :data:`RESNETS` or of :data:`ccfast.models.ibn.WITH_IBN`. ``weights``: "none", "imagenet" or a
    torchvision name (IMAGENET1K_V2); ``state`` is loaded if given.
    """
    if arch in WITH_IBN:
        network, state = _build_with_ibn(arch, weights, state, size)
    else:
        network = _build(arch, IMAGENET_WEIGHTS if weights == "imagenet" else weights)
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
    except (OSError, RuntimeError) as error:  # no network, or a download with a wrong hash
        raise not_downloaded(f"--weights: {weights}", error) from error


def _build_with_ibn(
    arch: str, weights: str, state: StateDict | None, size: tuple[int, int]
) -> tuple[Any, StateDict | None]:
    if weights not in ("none", "imagenet"):
        raise InputError(f"--weights: expected none, imagenet or a file that exists, got {weights}")
    if max(size) < _LEAST_SIZE_OF_IBN:
        raise InputError(
            f"--height, --width: expected at least {_LEAST_SIZE_OF_IBN} for one of them "
            f"(--arch {arch} normalises over positions), got {size[0]} x {size[1]}"
        )
    network = _build(arch.removesuffix("_ibn_a"), "none")
    add_ibn(network)
    return network, published_state(arch) if weights == "imagenet" else state


def _keep_resolution(network: Any) -> Any:
    """Stride 1 in layer4 (Luo et al., CVPRW 2019, section 3.5): twice the resolution in both directions."""
    for module in network.layer4[0].modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
    return network
