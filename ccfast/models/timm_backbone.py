"""Any network of the optional package timm as a backbone, convolutional or transformer: ``--arch timm/NAME``."""

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
    """A network of timm for images of ``size`` (height, width).

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
    except Exception as error:  # the download can raise many kinds of errors
        if not pretrained:
            raise InputError(f"--arch {arch}: timm could not build it: {error}") from error
        raise not_downloaded(f"--weights imagenet: the weights of {arch}", error) from error


def _converted(state: StateDict, network: Any) -> StateDict:
    """``state`` with the names of ``network``, if timm knows the names of its publisher (DINOv2, CLIP).

    Weights that match are not changed, nor are those that timm does not know; the loader then reports them.
    """
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    named = {name: value for name, value in state.items() if not name.startswith(CLASSIFIERS)}
    if convert is None or not misfits(network.state_dict(), named):
        return state
    try:
        found = convert(dict(state), network)
    except Exception:  # for unknown names timm can raise any error
        return state
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def _with_positions(state: StateDict, network: Any, arch: str, size: tuple[int, int]) -> StateDict:
    """``state`` with its position embeddings for images of ``size``, if they are for another size."""
    positions, own = state.get("pos_embed"), getattr(network, "pos_embed", None)
    if positions is None or own is None or positions.dim() != 3 or positions.shape == own.shape:
        return state
    grid = grid_of(positions.shape[1] - network.num_prefix_tokens)
    if grid is None or positions.shape[2] != own.shape[2]:
        return state  # the loader reports it
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
    return InputError(f"--arch {arch}: expected --height and --width that fit it, got {size[0]} x {size[1]}: {error}")


def _at_size(network: Any, arch: str, size: tuple[int, int]) -> nn.Module:
    """``network`` for images of ``size``, wrapped for its output: maps or tokens."""
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
    """Adapt a backbone to images of ``size`` (height, width), if it depends on it; timm interpolates its embeddings."""
    network = getattr(backbone, "network", backbone)
    if hasattr(network, "set_input_size"):  # transformers: embeddings and windows depend on the size
        network.set_input_size(img_size=size)


@torch.no_grad()
def _outputs(network: nn.Module, forward: Callable[[Tensor], Tensor], size: tuple[int, int]) -> Tensor:
    """The output of ``forward`` of ``network`` for one blank image, in evaluation mode."""
    network.eval()
    outputs = forward(torch.zeros(1, 3, *size))
    network.train()
    return outputs


def _freeze_idle(module: nn.Module, size: tuple[int, int]) -> None:
    """Switch off gradients of parameters that do not affect the outputs (a head after the maps); DDP would wait."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    module.eval()
    total = module(torch.zeros(1, 3, *size)).sum()
    module.train()
    gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.requires_grad_(gradient is not None)


class _Maps(nn.Module):
    """Feature maps [B, D, h, w] of a network that returns them in this order, or channels last (Swin)."""

    def __init__(self, network: Any, channels_last: bool) -> None:
        super().__init__()
        self.network = network
        self.channels_last = channels_last

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.network.forward_features(images)
        return maps.permute(0, 3, 1, 2) if self.channels_last else maps


class _Pooled(nn.Module):
    """Vectors [B, D] from a transformer's tokens, pooled by timm: class token or mean of the patch tokens."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        vectors: Tensor = self.network.forward_head(self.network.forward_features(images), pre_logits=True)
        return vectors
