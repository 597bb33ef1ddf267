"""Thumbnails of a data set's images, embedded in the page."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ccfast.data.image_files import ImageFiles

#: Images up to this size are drawn with their pixels as squares.
PIXELATED = 48

QUALITY = 82


@dataclass(frozen=True)
class Thumbnail:
    """An image as a data URI; ``path`` is that of its file, and ``name`` the same below the folder of all images.

    Both are empty for images that are not files.
    """

    uri: str
    name: str
    path: str
    pixelated: bool


def thumbnail(images: Sequence[Any], index: int, side: int) -> Thumbnail:
    """Image ``index``, its longer side at most ``side`` pixels."""
    image = as_picture(images[index])
    pixelated = max(image.size) <= PIXELATED
    image.thumbnail((side, side))
    file = io.BytesIO()
    kind = "PNG" if pixelated else "JPEG"
    image.save(file, kind, optimize=True, **({} if pixelated else {"quality": QUALITY}))
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return Thumbnail(f"data:image/{kind.lower()};base64,{data}", *_names(images, index), pixelated)


def as_picture(image: Any) -> Any:
    """A PIL image, L or RGB, from a data set's image: PIL, or a tensor [1 or 3, H, W], uint8 or in [0, 1]."""
    from PIL import Image

    if not isinstance(image, Tensor):
        return image.convert("L" if image.mode in ("1", "L", "I", "F") else "RGB")
    if image.dtype != torch.uint8:
        image = (image.float().nan_to_num() * 255).round().clamp(0, 255).to(torch.uint8)
    image = image.cpu() if image.dim() == 3 else image.cpu()[None]
    pixels = image[:3] if len(image) >= 3 else image[:1]
    array = pixels[0].numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array)


def _names(images: Sequence[Any], index: int) -> tuple[str, str]:
    if not isinstance(images, ImageFiles):
        return "", ""
    path = images.paths[index]
    return os.path.relpath(path, images.folder) if images.folder else path, path


def shorten(name: str, length: int) -> str:
    """``name`` with at most ``length`` characters: the middle is left out, because the end has the name of the file."""
    if len(name) <= length:
        return name
    first = (length - 1) // 3
    return f"{name[:first]}…{name[len(name) - (length - 1 - first) :]}"
