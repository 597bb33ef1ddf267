"""Augmentation of whole batches on their device, from one seed per image.

The random numbers are a hash of (seed, number of the draw) in integer arithmetic. They are the same on every device;
those of an image do not depend on the rest of the batch or on earlier draws. No function waits for the device.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

#: The published augmentation of photographs (Dai et al. 2021, section 4.2).
PADDING = 10
FLIP = 0.5
ERASING: dict[str, Any] = {"p": 0.5, "scale": (0.02, 0.4), "ratio": (0.3, 1 / 0.3)}

#: How often a box to erase is drawn until it fits, as in torchvision.
TRIES = 10
#: Random numbers per photograph: flip, crop (2), whether to erase, position (2), and two per try of a box.
DRAWS = 6 + 2 * TRIES

_LOW_32 = 2**32 - 1
_GOLDEN = 0x9E3779B9  # 2^32 / golden ratio: consecutive draws start far apart


def uniform(seeds: Tensor, draws: int) -> Tensor:
    """Random numbers [B, draws] float64 in [0, 1), multiples of 2^-32, from ``seeds`` [B] int64 in [0, 2^32)."""
    numbers = torch.arange(1, draws + 1, device=seeds.device)
    return _mix((_mix(seeds & _LOW_32)[:, None] + numbers * _GOLDEN) & _LOW_32).double() / 2**32


def _mix(x: Tensor) -> Tensor:
    """A hash of 32-bit numbers stored in int64; the factors are below 2^31, so no product overflows."""
    x = x ^ (x >> 16)
    x = (x * 0x21F0AAAD) & _LOW_32
    x = x ^ (x >> 15)
    x = (x * 0x735A2D97) & _LOW_32
    return x ^ (x >> 15)


def augment_photographs(images: Tensor, seeds: Tensor, erasing_value: tuple[int, ...]) -> Tensor:
    """Photographs [B, C, H, W] flipped, cropped and erased from ``seeds`` [B] int64; the same dtype and device.

    Each photograph is mirrored with probability 0.5, and shifted by up to 10 pixels in both directions, filled with 0.
    With probability 0.5 a box of 2 to 40% of its area is set to ``erasing_value`` (one number per channel; Zhong et al.
    2020).
    """
    draws = uniform(seeds, DRAWS)
    height, width = images.shape[2:]
    moved = flip_and_crop(images, draws[:, 0] < FLIP, integers(draws[:, 1:3], 2 * PADDING + 1))
    box = erased_boxes(draws[:, 3:], height, width)
    value = _on_device(erasing_value, images.dtype, images.device)[:, None, None]
    return torch.where(_inside(box, height, width)[:, None], value, moved)


@cache
def _on_device(values: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """``values`` as a tensor, copied to the device once, because each copy waits for the device."""
    return torch.tensor(values, dtype=dtype, device=device)


def integers(draws: Tensor, limit: int | Tensor) -> Tensor:
    """Random numbers in [0, 1) as integers in [0, limit)."""
    return (draws * limit).long()


def flip_and_crop(images: Tensor, flip: Tensor, corner: Tensor) -> Tensor:
    """Images [B, C, H, W] mirrored if ``flip`` [B], padded with 10 zeros on all sides, and cropped to H x W.

    ``corner`` [B, 2] is the crop's top and left in the padded image, in [0, 20]. One gather from the padded images does
    all; the columns of a mirrored image are read from the right.
    """
    batch, channels, height, width = images.shape
    padded = F.pad(images, [PADDING] * 4)
    rows = corner[:, :1] + torch.arange(height, device=images.device)
    columns = corner[:, 1:] + torch.arange(width, device=images.device)
    columns = torch.where(flip[:, None], width + 2 * PADDING - 1 - columns, columns)
    places = rows[:, :, None] * (width + 2 * PADDING) + columns[:, None, :]
    places = places.view(batch, 1, -1).expand(-1, channels, -1)
    return padded.flatten(2).gather(2, places).view_as(images)


def erased_boxes(draws: Tensor, height: int, width: int) -> Tensor:
    """Boxes [B, 4] (top, left, height, width) to erase, from ``draws`` [B, 3 + 2 * TRIES]; height 0: nothing.

    As in torchvision's RandomErasing, area and aspect ratio are drawn until the box is smaller than the image in both
    directions, up to ten times. Here all tries are drawn together, and the first box that fits is used.
    """
    low, high = ERASING["scale"]
    log_ratios = [math.log(ratio) for ratio in ERASING["ratio"]]
    areas = height * width * (low + (high - low) * draws[:, 3 : 3 + TRIES])
    ratios = (log_ratios[0] + (log_ratios[1] - log_ratios[0]) * draws[:, 3 + TRIES :]).exp()
    heights, widths = (areas * ratios).sqrt().round().long(), (areas / ratios).sqrt().round().long()
    fits = (heights < height) & (widths < width)
    first = fits.int().argmax(1, keepdim=True)
    wanted = (draws[:, :1] < ERASING["p"]) & fits.gather(1, first)
    h, w = heights.gather(1, first), widths.gather(1, first)
    top, left = integers(draws[:, 1:2], height - h + 1), integers(draws[:, 2:3], width - w + 1)
    return torch.cat([top, left, h * wanted, w], 1)


def _inside(boxes: Tensor, height: int, width: int) -> Tensor:
    """Whether pixels [B, height, width] are in the box of their image."""
    rows = torch.arange(height, device=boxes.device) - boxes[:, 0:1]
    columns = torch.arange(width, device=boxes.device) - boxes[:, 1:2]
    in_rows, in_columns = (rows >= 0) & (rows < boxes[:, 2:3]), (columns >= 0) & (columns < boxes[:, 3:4])
    return in_rows[:, :, None] & in_columns[:, None, :]
