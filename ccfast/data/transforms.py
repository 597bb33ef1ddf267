"""The published augmentation for photographs, with torchvision's transforms (imported only when needed)."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ccfast._optional import import_optional
from ccfast.data.augment import ERASING, FLIP, PADDING, augment_photographs
from ccfast.data.reid_data import Views


def image_views(encoder: Any) -> Views:
    """Views of PIL images as uint8 tensors [3, H, W] of the encoder's size; the encoder normalises them itself.

    Augmented: flip, pad 10 + crop, random erasing 0.5 (Dai et al. 2021, section 4.2).
    """
    v2 = _torchvision_transforms()
    size = [encoder.height, encoder.width]
    resize = v2.Resize(size, interpolation=v2.InterpolationMode.BICUBIC, antialias=True)
    plain = v2.Compose([resize, v2.PILToTensor()])
    erasing = v2.RandomErasing(**ERASING, value=_erasing_value(encoder))
    augmented = v2.Compose(
        [resize, v2.RandomHorizontalFlip(FLIP), v2.Pad(PADDING), v2.RandomCrop(size), v2.PILToTensor(), erasing]
    )
    return Views(plain, _Seeded(augmented), partial(augment_photographs, erasing_value=tuple(erasing.value)))


class _Seeded:
    """Run a transform that uses torch's global generator with a given seed, and restore the generator."""

    def __init__(self, transform: Any) -> None:
        self.transform = transform

    def __call__(self, image: Any, seed: int) -> Tensor:
        state = torch.get_rng_state()
        torch.default_generator.manual_seed(seed)
        try:
            return self.transform(image)
        finally:
            torch.set_rng_state(state)


def _erasing_value(encoder: Any) -> list[int]:
    """The authors erase with the value ``mean`` after normalisation; before it, this is ``mean + std * mean``."""
    mean, std = encoder.input_mean.flatten().cpu(), encoder.input_std.flatten().cpu()
    return (255 * (mean + std * mean)).round().clamp(0, 255).int().tolist()


def _torchvision_transforms() -> Any:
    return import_optional("torchvision.transforms.v2", "an image folder")
