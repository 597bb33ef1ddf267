"""Images that are decoded once: all inputs of a part without augmentation, in RAM or on the device."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from ccfast._errors import InputError
from ccfast._progress import progress
from ccfast.data.free_memory import available
from ccfast.data.reid_data import Part, ReIDData

#: The share of the free memory that a cache may use; activations and features need the rest.
SHARE = 0.8

_GIB = 2**30


class ImageCache(Sequence[Tensor]):
    """``cache[i]`` is the plain input [C, H, W] of image i; ``pixels`` [N, C, H, W] are all of them."""

    def __init__(self, pixels: Tensor) -> None:
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: Any) -> Tensor:
        return self.pixels[index]

    def is_on(self, device: torch.device) -> bool:
        """Whether the images are on ``device``; a process uses one device of each type."""
        return self.pixels.device.type == device.type

    def rows(self, chosen: Tensor | slice, device: torch.device) -> Tensor:
        """The inputs ``chosen`` (int64 [B], or a slice) on ``device``; nothing waits for a GPU."""
        if self.is_on(device):
            return self.pixels[chosen]
        if isinstance(chosen, slice):
            chosen = torch.arange(len(self.pixels))[chosen]
        inputs = self.pixels.new_empty(len(chosen), *self.pixels.shape[1:], pin_memory=device.type == "cuda")
        torch.index_select(self.pixels, 0, chosen, out=inputs)
        return inputs.to(device, non_blocking=True)

    @classmethod
    def build(
        cls,
        images: Sequence[Any],
        view: Callable[[Any], Tensor],
        *,
        device: torch.device,
        workers: int,
        title: str = "decode",
    ) -> ImageCache:
        """``view`` of every image, decoded by ``workers`` threads (at least one), kept on ``device``.

        All views must have the shape and dtype of the first.
        """
        first = view(images[0])
        pixels = torch.empty(len(images), *first.shape, dtype=first.dtype, device=device)

        def decode(row: int) -> None:
            pixels[row] = view(images[row])

        pool = ThreadPoolExecutor(max(1, workers))
        try:
            for _ in progress(pool.map(decode, range(len(images))), title, len(images)):
                pass
        finally:
            pool.shutdown(cancel_futures=True)
        return cls(pixels)


def decoded(
    data: ReIDData, view: Callable[[Any], Tensor], *, place: str, device: torch.device, workers: int
) -> ReIDData:
    """``data`` with the images of every part in an :class:`ImageCache`; ``place``: "ram", or "device" for ``device``.

    With several processes, each keeps all images.

    Raises:
        InputError: the images need more memory than is free.
    """
    target = device if place == "device" else torch.device("cpu")
    parts = {name: part for name in ("train", "query", "gallery") if (part := getattr(data, name)) is not None}
    _require_room(sum(map(len, parts.values())), view(data.train.images[0]), place, target)

    def cached(name: str, part: Part) -> Part:
        images = ImageCache.build(part.images, view, device=target, workers=workers, title=f"decode {name}")
        return dataclasses.replace(part, images=images)

    return dataclasses.replace(data, **{name: cached(name, part) for name, part in parts.items()})


def _require_room(count: int, image: Tensor, place: str, target: torch.device) -> None:
    copies = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if target.type == "cpu" else 1  # processes of torchrun
    needed = count * math.prod(image.shape) * image.element_size() * copies
    room = available(target)
    if room is None or needed <= SHARE * room:
        return
    shape = " x ".join(map(str, image.shape))
    each = f" in each of {copies} processes" if copies > 1 else ""
    instead = "none" if place == "ram" else "ram or none"
    raise InputError(
        f"--cache {place}: {count} images of {shape}{each} need {needed / _GIB:.2f} GiB, and at most {SHARE:.0%} of "
        f"the {room / _GIB:.2f} GiB available may be used; use --cache {instead}, or a smaller --height and --width"
    )
