"""Encoders: images to features of unit norm."""

from __future__ import annotations

from pathlib import Path

from ccfast._errors import InputError
from ccfast.models.encoder import Backbone, Encoder, encode_in_groups
from ccfast.models.ibn import WITH_IBN
from ccfast.models.pooling import POOLINGS
from ccfast.models.resnet import RESNETS, resnet
from ccfast.models.smallconv import smallconv
from ccfast.models.timm_backbone import PREFIX, resize, timm_backbone
from ccfast.models.torchreid_backbone import PREFIX as TORCHREID
from ccfast.models.torchreid_backbone import torchreid_backbone
from ccfast.models.weights import StateDict, load_weights, read_state_dict

__all__ = ["POOLINGS", "Backbone", "Encoder", "build_encoder", "encode_in_groups", "resize"]

#: The builders of other packages' networks, by the beginning of their names.
BY_PREFIX = {PREFIX: timm_backbone, TORCHREID: torchreid_backbone}


def build_encoder(
    arch: str,
    *,
    channels: int,
    height: int,
    width: int,
    weights: str = "none",
    pooling: str = "gem",
    projection: int = 0,
    freeze_bn: bool = False,
    freeze_patch_embed: bool = False,
) -> Encoder:
    """An encoder for images of ``channels`` x ``height`` x ``width``.

    ``arch``: "smallconv", a ResNet of torchvision ("resnet18" to "resnet152"), a ResNet with instance-batch
    normalisation ("resnet50_ibn_a"), "timm/NAME" (any network of timm) or "torchreid/NAME" (an OSNet of torchreid). All
    except smallconv take three channels; grey images are repeated. ``projection``: see :class:`Encoder`.
    ``freeze_patch_embed``: a transformer keeps its patch embedding (Chen et al., ICCV 2021, section 4: this makes
    training more stable).
    ``weights``: "none", "imagenet", a torchvision weights name, or a file: weights of the architecture under its
    library's own names, or a ccfast checkpoint of the same architecture.
    """
    state = read_state_dict(Path(weights)) if Path(weights).is_file() else None
    whole = state is not None and "neck.weight" in state
    backbone = _backbone(
        arch, "none" if state is not None else weights, None if whole else state, channels, (height, width)
    )
    encoder = Encoder(backbone, height=height, width=width, pooling=pooling, projection=projection, freeze_bn=freeze_bn)
    if state is not None and whole:
        load_weights(encoder, state, arch)
    if freeze_patch_embed:
        _freeze_patch_embed(encoder, arch)
    return encoder


def _freeze_patch_embed(encoder: Encoder, arch: str) -> None:
    embedding = getattr(getattr(encoder.backbone, "network", None), "patch_embed", None)
    if embedding is None:
        raise InputError(f"--freeze-patch-embed: --arch {arch} has no patch embedding; timm's transformers do")
    embedding.requires_grad_(False)


def _backbone(arch: str, weights: str, state: StateDict | None, channels: int, size: tuple[int, int]) -> Backbone:
    if arch == "smallconv":
        if weights != "none" or state is not None:
            raise InputError("--weights: smallconv has no pretrained weights; expected none or a ccfast checkpoint")
        return smallconv(channels)
    build = next((found for prefix, found in BY_PREFIX.items() if arch.startswith(prefix)), None)
    if arch not in (*RESNETS, *WITH_IBN) and build is None:
        known = ", ".join(("smallconv", *RESNETS, *WITH_IBN))
        raise InputError(f"--arch: expected {known}, timm/NAME or torchreid/NAME, got {arch!r}")
    if channels not in (1, 3):
        raise InputError(f"--arch {arch} takes images of 1 or 3 channels, got {channels}; use --arch smallconv")
    return (build or resnet)(arch, weights, state, size)
