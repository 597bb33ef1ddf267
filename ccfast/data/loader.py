"""Loaders over a part's images: one plain pass in order, or the sampler's augmented batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler


class PlainImages(Dataset[Tensor]):
    """Images ``rows`` as inputs to measure with."""

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


def plain_loader(
    images: Sequence[Any],
    view: Callable[[Any], Tensor],
    rows: range,
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
) -> DataLoader[Tensor]:
    """The images ``rows`` once, in order: batches [B, C, H, W]."""
    dataset = PlainImages(images, view, rows)
    return DataLoader(dataset, batch_size, num_workers=workers, pin_memory=device.type == "cuda")


def augmented_loader(
    images: Sequence[Any],
    view: Callable[[Any, int], Tensor],
    sampler: Sampler[list[tuple[int, int]]],
    *,
    workers: int,
    device: torch.device,
) -> DataLoader[tuple[Tensor, Tensor]]:
    """The sampler's batches: inputs [B, C, H, W] and the indices [B] of their images."""
    dataset = AugmentedImages(images, view)
    return DataLoader(dataset, batch_sampler=sampler, num_workers=workers, pin_memory=device.type == "cuda")
