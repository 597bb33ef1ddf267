"""Views of drawings and handwriting: one channel, bright ink on a dark background."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ccfast.data.augment import uniform
from ccfast.data.reid_data import Views

MAX_ANGLE = math.radians(12)
MAX_SHIFT = 1 / 8  # of half the width, or of half the height
MAX_SCALE = 0.1

#: Random numbers per image: rotation, horizontal and vertical scale, horizontal and vertical shift.
DRAWS = 5


def drawing_views(encoder: Any) -> Views:
    """Views of images [1, H0, W0], uint8 or floats in [0, 1], as inputs [1, H, W] of the encoder's size, same dtype.

    Plain: resized (antialiased). Augmented: also slightly rotated, scaled and shifted, with 0 at the edges.
    """
    size = [encoder.height, encoder.width]
    return Views(partial(resize, size=size), partial(_resized_and_augmented, size=size), augment_batch)


def _resized_and_augmented(image: Tensor, seed: int, size: list[int]) -> Tensor:
    return augment(resize(image, size), seed)


def resize(image: Tensor, size: list[int]) -> Tensor:
    """``image`` [1, H0, W0] as [1, *size] in its dtype; unchanged if it already has this size."""
    if list(image.shape[1:]) == size:
        return image
    resized = F.interpolate(image[None].float(), size, mode="bilinear", antialias=True, align_corners=False)[0]
    return _as_dtype(resized, image.dtype)


def augment(image: Tensor, seed: int) -> Tensor:
    """A drawing [1, H, W] slightly rotated, scaled and shifted; the same for the same ``seed``."""
    draws = torch.rand(DRAWS, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
    return _moved(image[None], draws[None].double())[0]


def augment_batch(images: Tensor, seeds: Tensor) -> Tensor:
    """Drawings [B, 1, H, W] transformed from ``seeds`` [B] int64, on their common device."""
    return _moved(images, uniform(seeds, DRAWS))


def _moved(images: Tensor, draws: Tensor) -> Tensor:
    grid = F.affine_grid(_affine(draws, *images.shape[2:]), list(images.shape), align_corners=False)
    return _as_dtype(F.grid_sample(images.float(), grid, align_corners=False), images.dtype)


def _affine(draws: Tensor, height: int, width: int) -> Tensor:
    """Maps [B, 2, 3] from positions in the result to positions in the image, from ``draws`` [B, 5] in [0, 1)."""
    turn, grow_x, grow_y, shift_x, shift_y = (2 * draws - 1).unbind(1)
    cos, sin = (turn * MAX_ANGLE).cos(), (turn * MAX_ANGLE).sin()
    scale_x, scale_y = 1 + grow_x * MAX_SCALE, 1 + grow_y * MAX_SCALE
    aspect = height / width  # both axes run from -1 to 1; without it a rotation would shear a non-square image
    first = torch.stack([cos * scale_x, -sin * scale_y * aspect, shift_x * MAX_SHIFT], 1)
    second = torch.stack([sin * scale_x / aspect, cos * scale_y, shift_y * MAX_SHIFT], 1)
    return torch.stack([first, second], 1).float()


def _as_dtype(pixels: Tensor, dtype: torch.dtype) -> Tensor:
    if dtype == torch.uint8:
        pixels = pixels.round().clamp(0, 255)
    return pixels.to(dtype)
