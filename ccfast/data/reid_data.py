"""What every data set comes down to: three parts, each with images and what is known of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ccfast.data.findings import Findings
from ccfast.data.protocol import Protocol, everything


@dataclass(frozen=True)
class Part:
    """``N`` images and what is known of them; every tensor is [N] int64, and None where nothing is known.

    ``ids`` are true identities: for metrics only. ``cams`` are cameras, ``clothes`` numbers of outfits, counted for
    each identity on its own.
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

    Where ``query`` or ``gallery`` is None there is nothing to measure with. ``make_views(encoder)`` gives the views
    that suit an encoder's input size and normalisation. ``protocols`` says how query and gallery are compared, the main
    protocol first; where none is given, Market-1501's. ``findings``: what reading came across beside the images.
    ``infrared_cams``: the cameras whose images are infrared.
    """

    name: str
    train: Part
    query: Part | None
    gallery: Part | None
    channels: int
    make_views: Callable[[Any], Views]
    protocols: dict[str, Protocol] = field(default_factory=dict)
    findings: Findings = field(default_factory=Findings)
    infrared_cams: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.protocols and self.query is not None and self.gallery is not None:
            object.__setattr__(self, "protocols", {"market1501": everything(len(self.query), len(self.gallery))})

    def __str__(self) -> str:
        others = {"query": self.query, "gallery": self.gallery}
        there = [f"{len(part)} {name}" for name, part in others.items() if part is not None]
        missing = [name for name, part in others.items() if part is None]
        named = [*there, *([f"no {' and '.join(missing)}"] if missing else [])]
        return f"{self.name}: {len(self.train)} training images, {', '.join(named)}"

    def is_infrared(self) -> Tensor:
        """[N] bool: which training images are infrared."""
        if self.train.cams is None:
            return torch.zeros(len(self.train), dtype=torch.bool)
        return torch.isin(self.train.cams, torch.tensor(self.infrared_cams, dtype=torch.int64))

    def ignoring_cameras(self) -> ReIDData:
        """The same with a query and a gallery of unknown cameras: nothing is left out when ranking."""
        query, gallery = (part and replace(part, cams=None) for part in (self.query, self.gallery))
        return replace(self, query=query, gallery=gallery)
