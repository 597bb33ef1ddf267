"""What every data set comes down to: three parts, each with images and what is known of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ccfast.data.protocol import Protocol, everything


@dataclass(frozen=True)
class Part:
    """``N`` images and what is known of them; every tensor is [N] int64, and None where nothing is known.

    ``ids`` are true identities: for metrics only, and never None in a query or a gallery. ``cams`` are cameras,
    ``clothes`` numbers of outfits, counted for each identity on its own.
    """

    images: Sequence[Any]
    ids: Tensor | None
    cams: Tensor | None = None
    clothes: Tensor | None = None

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
    views that suit an encoder's input size and normalisation. ``protocols`` says how query and gallery are compared,
    the main protocol first; where none is given, Market-1501's.
    """

    name: str
    train: Part
    query: Part | None
    gallery: Part | None
    channels: int
    make_views: Callable[[Any], Views]
    protocols: dict[str, Protocol] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.protocols and self.query is not None and self.gallery is not None:
            object.__setattr__(self, "protocols", {"market1501": everything(len(self.query), len(self.gallery))})

    def __str__(self) -> str:
        parts = f"{self.name}: {len(self.train)} training images"
        if self.query is None or self.gallery is None:
            return f"{parts}, no query and gallery"
        return f"{parts}, {len(self.query)} query, {len(self.gallery)} gallery"
