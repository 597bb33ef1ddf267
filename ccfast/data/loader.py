"""Loaders over a part's images: one pass in order without augmentation, or the sampler's augmented batches.

Images in an :class:`ImageCache` are sliced, copied to the device and augmented there, one batch at a time; others are
decoded and augmented one by one, in worker processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ccfast.data.cache import ImageCache
from ccfast.data.reid_data import Views

Batch = TypeVar("Batch", covariant=True)


class Loader(Protocol[Batch]):
    """Batches with a known length."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]: ...


class PlainImages(Dataset[Tensor]):
    """The images ``rows`` as inputs without augmentation."""

    def __init__(self, images: Sequence[Any], view: Callable[[Any], Tensor], rows: range) -> None:
        self.images, self.view, self.rows = images, view, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Tensor:
        return self.view(self.images[self.rows[index]])


class AugmentedImages(Dataset[tuple[Tensor, int]]):
    """``(i, seed)`` -> image ``i`` as an augmented input, and ``i``."""

    def __init__(self, images: Sequence[Any], view: Callable[[Any, int], Tensor]) -> None:
        self.images, self.view = images, view

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, int]:
        index, seed = item
        return self.view(self.images[index], seed), index


class CachedImages:
    """Images ``rows`` of a cache in order, as batches [B, C, H, W] on ``device``."""

    def __init__(self, images: ImageCache, rows: range, batch_size: int, device: torch.device) -> None:
        self.images, self.rows, self.batch_size, self.device = images, rows, batch_size, device

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        for start in range(self.rows.start, self.rows.stop, self.batch_size):
            yield self.images.rows(slice(start, min(start + self.batch_size, self.rows.stop)), self.device)


class CachedBatches:
    """The ``sampler``'s batches from a cache: inputs augmented on ``device``, and the indices of their images."""

    def __init__(
        self,
        images: ImageCache,
        augment_batch: Callable[[Tensor, Tensor], Tensor],
        sampler: Sampler[list[tuple[int, int]]],
        device: torch.device,
    ) -> None:
        self.images, self.augment_batch, self.sampler, self.device = images, augment_batch, sampler, device

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self.sampler:
            drawn = torch.tensor(batch, dtype=torch.int64).reshape(-1, 2).T.contiguous()
            moved = (drawn.pin_memory() if self.device.type == "cuda" else drawn).to(self.device, non_blocking=True)
            chosen = moved[0] if self.images.is_on(self.device) else drawn[0]
            yield self.augment_batch(self.images.rows(chosen, self.device), moved[1]), moved[0]


def plain_loader(
    images: Sequence[Any],
    view: Callable[[Any], Tensor],
    rows: range,
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
) -> Loader[Tensor]:
    """The images ``rows`` once, in order: batches [B, C, H, W]. Images in a cache are already plain views."""
    if isinstance(images, ImageCache):
        return CachedImages(images, rows, batch_size, device)
    dataset = PlainImages(images, view, rows)
    return DataLoader(dataset, batch_size, num_workers=workers, pin_memory=device.type == "cuda")


def augmented_loader(
    images: Sequence[Any],
    views: Views,
    sampler: Sampler[list[tuple[int, int]]],
    *,
    workers: int,
    device: torch.device,
) -> Loader[tuple[Tensor, Tensor]]:
    """The sampler's batches: inputs [B, C, H, W] and the indices [B] of their images."""
    if isinstance(images, ImageCache):
        return CachedBatches(images, views.augment_batch, sampler, device)
    dataset = AugmentedImages(images, views.augmented)
    return DataLoader(dataset, batch_sampler=sampler, num_workers=workers, pin_memory=device.type == "cuda")
