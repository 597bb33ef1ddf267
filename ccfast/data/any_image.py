"""Images in any form as inputs of an encoder, with the transforms of its training."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ccfast.data.drawings import drawing_views
from ccfast.data.image_files import decode
from ccfast.data.transforms import image_views

#: The data sets of drawings, with bright ink on a dark background; all others are photographs.
DRAWINGS = ("digits", "omniglot")

FORMS = (
    "a path, a PIL image, an array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4], or a tensor [H, W], [1, H, W], "
    "[3, H, W] or [4, H, W]"
)

#: The possible numbers of channels: grey, colours, colours with opacity.
CHANNELS = (1, 3, 4)


class AnyImage:
    """``view(image)`` is an image as an input [C, H, W] of ``encoder``, with the transforms of ``dataset``.

    Photographs: in RGB, resized (bicubic, antialiased) to uint8. Drawings: in one channel, resized. Every form of one
    image (path, PIL image, array, tensor) gives the same input; floats are in [0, 1].

    Args:
        encoder: an object with ``height``, ``width``, ``input_mean`` and ``input_std``.
        dataset: the data set on which the encoder was trained.
        max_pixels: files with more pixels count as unreadable; None: the usual limit.
    """

    def __init__(self, encoder: Any, dataset: str, max_pixels: int | None = None) -> None:
        self.drawings = dataset in DRAWINGS
        self.plain = (drawing_views if self.drawings else image_views)(encoder).plain
        self.max_pixels = max_pixels

    def __call__(self, image: Any) -> Tensor:
        """The input.

        Raises:
            TypeError: an object that is not an image.
            ValueError: an image with a wrong shape, without pixels, or with values outside [0, 1]; an unreadable file.
        """
        if isinstance(image, str | os.PathLike):
            image = decode(os.fspath(image), self.max_pixels)
        elif isinstance(image, Tensor | np.ndarray):
            image = _checked(image)
        return self.plain(self._drawing(image) if self.drawings else as_rgb(image))

    def _drawing(self, image: Any) -> Tensor:
        """One channel, uint8 or floats in [0, 1]."""
        if isinstance(image, Tensor) and len(image) == 1:
            return image
        return torch.from_numpy(np.array(as_rgb(image).convert("L")))[None]


def as_rgb(image: Any) -> Any:
    """A PIL image in RGB, from a PIL image or from a checked tensor [C, H, W]."""
    from PIL import Image

    if isinstance(image, Tensor):
        return Image.fromarray(_as_bytes(image)).convert("RGB")
    if not isinstance(image, Image.Image):
        raise TypeError(f"expected an image: {FORMS}; got {type(image).__name__}")
    if min(image.size) == 0:
        raise ValueError(f"expected at least one pixel, got an image of {image.size[0]} x {image.size[1]}")
    if image.mode.startswith("I;16"):  # Pillow would cut off at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")


def _as_bytes(image: Tensor) -> np.ndarray:
    """[H, W] or [H, W, C] uint8 from a tensor [C, H, W]."""
    if image.dtype != torch.uint8:
        image = (image.float() * 255).round().to(torch.uint8)
    pixels = image.cpu().numpy()
    return pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0))


def _checked(image: Tensor | np.ndarray) -> Tensor:
    """An array or tensor as a tensor [C, H, W], uint8 or floats in [0, 1]."""
    shape, dtype = tuple(image.shape), str(image.dtype).removeprefix("torch.")
    channels_last = isinstance(image, np.ndarray)
    axis = -1 if channels_last else 0
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[axis] not in CHANNELS):
        raise ValueError(f"expected {FORMS}; got {'an array' if channels_last else 'a tensor'} of shape {shape}")
    if 0 in shape:
        raise ValueError(f"expected at least one pixel, got shape {shape}")
    if dtype not in ("uint8", "bool", "float16", "bfloat16", "float32", "float64"):
        raise TypeError(f"expected uint8, or floats in [0, 1], got {dtype}")
    if channels_last:
        image = torch.from_numpy(np.require(image, requirements=["C", "W"]))  # copies only if necessary
    if dtype == "bool":
        image = image.float()
    if image.is_floating_point() and not bool(((image >= 0) & (image <= 1)).all()):
        raise ValueError(f"expected floats in [0, 1], or uint8, got values from {image.min()} to {image.max()}")
    image = image.detach()
    return image[None] if len(shape) == 2 else image.permute(2, 0, 1) if channels_last else image
