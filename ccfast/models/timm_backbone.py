"""Any network of timm (optional package) as a backbone, convolutional or transformer: ``--arch timm/NAME``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ccfast._errors import InputError
from ccfast.models.encoder import Backbone
from ccfast.models.weights import CLASSIFIERS, StateDict, load_weights, misfits, not_downloaded
from ccfast.pretrained import fitted, grid_of

PREFIX = "timm/"


def timm_backbone(arch: str, weights: str, state: StateDict | None, size: tuple[int, int]) -> Backbone:
    """A network of timm's for images of ``size`` (height, width).

    ``arch``: "timm/NAME"; ``weights``: "none" or "imagenet" (timm's, downloaded); ``state`` is loaded if given. Its
    position embeddings are interpolated to ``size``.
    """
    if weights not in ("none", "imagenet"):
        raise InputError(f"--weights: expected none, imagenet or a file that exists, got {weights}")
    network = _create(arch, pretrained=weights == "imagenet")
    mean, std = tuple(network.pretrained_cfg["mean"]), tuple(network.pretrained_cfg["std"])
    if state is not None:
        known = fitted(state, network.state_dict())
        mean, std = known.mean or mean, known.std or std
        load_weights(network, _converted(_with_positions(known.state, network, arch, size), network), arch)
    module = _at_size(network, arch, size)
    _freeze_idle(module, size)
    return Backbone(module, _outputs(module, module, size).shape[1], mean, std, pooled=isinstance(module, _Pooled))


def _create(arch: str, pretrained: bool) -> Any:
    try:
        import timm
    except ImportError as error:
        raise InputError(f"--arch {arch} needs timm, which is not installed: pip install 'ccfast[timm]'") from error
    name = arch.removeprefix(PREFIX)
    if not timm.is_model(name):
        raise InputError(f"--arch {arch}: timm {timm.__version__} has no model {name!r}")
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0)
    except Exception as error:  # the download's errors are of many kinds
        if not pretrained:
            raise InputError(f"--arch {arch}: timm could not make it: {error}") from error
        raise not_downloaded(f"--weights imagenet: the weights of {arch}", error) from error


def _converted(state: StateDict, network: Any) -> StateDict:
    """``state`` under the names of ``network``, where timm knows the names that its publisher gave: DINOv2, CLIP.

    Weights that fit are left as they are, and so are those that timm makes nothing of, for the loader to complain.
    """
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    named = {name: value for name, value in state.items() if not name.startswith(CLASSIFIERS)}
    if convert is None or not misfits(network.state_dict(), named):
        return state
    try:
        found = convert(dict(state), network)
    except Exception:  # timm raises whatever names that it does not know lead it to
        return state
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def _with_positions(state: StateDict, network: Any, arch: str, size: tuple[int, int]) -> StateDict:
    """``state`` with its position embeddings for images of ``size``, where they are not for the network's own size."""
    positions, own = state.get("pos_embed"), getattr(network, "pos_embed", None)
    if positions is None or own is None or positions.dim() != 3 or positions.shape == own.shape:
        return state
    grid = grid_of(positions.shape[1] - network.num_prefix_tokens)
    if grid is None or positions.shape[2] != own.shape[2]:
        return state  # for the loader to complain of
    from timm.layers import resample_abs_pos_embed

    _resized(network, arch, size)
    new, kept = list(network.patch_embed.grid_size), network.num_prefix_tokens
    return {**state, "pos_embed": resample_abs_pos_embed(positions, new, list(grid), kept)}


def _resized(network: Any, arch: str, size: tuple[int, int]) -> None:
    try:
        resize(network, size)
    except (AssertionError, RuntimeError, ValueError) as error:
        raise _wrong_size(arch, size, error) from error


def _wrong_size(arch: str, size: tuple[int, int], error: Exception) -> InputError:
    return InputError(f"--arch {arch}: expected --height and --width that it takes, got {size[0]} x {size[1]}: {error}")


def _at_size(network: Any, arch: str, size: tuple[int, int]) -> nn.Module:
    """``network`` for images of ``size``, wrapped for what it gives: maps or tokens."""
    try:
        resize(network, size)
        outputs = _outputs(network, network.forward_features, size)
    except (AssertionError, RuntimeError, ValueError) as error:
        raise _wrong_size(arch, size, error) from error
    channels = network.num_features
    if outputs.dim() == 3 and hasattr(network, "forward_head"):
        return _Pooled(network)
    if outputs.dim() == 4 and channels in (outputs.shape[1], outputs.shape[3]):
        return _Maps(network, channels_last=outputs.shape[1] != channels)
    raise InputError(
        f"--arch {arch}: expected feature maps [B, {channels}, h, w] or tokens [B, N, {channels}], got "
        f"{list(outputs.shape)}; choose another network"
    )


def resize(backbone: nn.Module, size: tuple[int, int]) -> None:
    """Make a backbone take images of ``size`` (height, width), where it matters: timm interpolates its embeddings."""
    network = getattr(backbone, "network", backbone)
    if hasattr(network, "set_input_size"):  # transformers: embeddings and windows depend on the size
        network.set_input_size(img_size=size)


@torch.no_grad()
def _outputs(network: nn.Module, forward: Callable[[Tensor], Tensor], size: tuple[int, int]) -> Tensor:
    """What ``forward`` of ``network`` gives for one blank image, in evaluation mode."""
    network.eval()
    outputs = forward(torch.zeros(1, 3, *size))
    network.train()
    return outputs


def _freeze_idle(module: nn.Module, size: tuple[int, int]) -> None:
    """No gradient for parameters that the outputs do not depend on (of a head beyond the maps): DDP waits for each."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    module.eval()
    total = module(torch.zeros(1, 3, *size)).sum()
    module.train()
    gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.requires_grad_(gradient is not None)


class _Maps(nn.Module):
    """Feature maps [B, D, h, w] of a network that gives them so, or channels last (Swin)."""

    def __init__(self, network: Any, channels_last: bool) -> None:
        super().__init__()
        self.network = network
        self.channels_last = channels_last

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.network.forward_features(images)
        return maps.permute(0, 3, 1, 2) if self.channels_last else maps


class _Pooled(nn.Module):
    """Vectors [B, D] from a transformer's tokens, pooled as timm does: class token or mean of the patches'."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        vectors: Tensor = self.network.forward_head(self.network.forward_features(images), pre_logits=True)
        return vectors
