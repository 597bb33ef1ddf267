"""What every data set comes down to: three parts, each with images and what is known of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Part:
    """``N`` images; ``ids`` [N] are true identities (for metrics only), ``cams`` [N] cameras where there are any."""

    images: Sequence[Any]
    ids: Tensor
    cams: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Views:
    """How an image becomes an input: ``plain(image)`` to measure, ``augmented(image, seed)`` to learn.

    ``augment_batch(inputs, seeds)`` augments plain inputs [B, C, H, W] in the same way, with ``seeds`` [B] int64 on
    their device: one pass over a batch that is decoded already. It draws other random numbers than ``augmented``.
    """

    plain: Callable[[Any], Tensor]
    augmented: Callable[[Any, int], Tensor]
    augment_batch: Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class ReIDData:
    """A training part whose identities are never used to train, and a query and a gallery to measure with.

    ``query`` and ``gallery`` are both None where there is nothing to measure with. ``make_views(encoder)`` gives the
    views that suit an encoder's input size and normalisation.
    """

    name: str
    train: Part
    query: Part | None
    gallery: Part | None
    channels: int
    make_views: Callable[[Any], Views]

    def __str__(self) -> str:
        parts = f"{self.name}: {len(self.train)} training images"
        if self.query is None or self.gallery is None:
            return f"{parts}, no query and gallery"
        return f"{parts}, {len(self.query)} query, {len(self.gallery)} gallery"
