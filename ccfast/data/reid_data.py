"""The common form of all data sets: three parts, each with images and their labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ccfast._words import counted
from ccfast.data.findings import Findings
from ccfast.data.protocol import Protocol, everything


@dataclass(frozen=True)
class Part:
    """``N`` images and their labels; every tensor is [N] int64, or None if unknown.

    ``ids`` are true identities, for metrics only. ``cams`` are cameras; ``clothes`` are numbers of outfits, counted
    separately for each identity.
    """

    images: Sequence[Any]
    ids: Tensor | None
    cams: Tensor | None = None
    clothes: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Views:
    """Turns an image into an input: ``plain(image)`` for evaluation, ``augmented(image, seed)`` for training.

    ``augment_batch(inputs, seeds)`` augments plain inputs [B, C, H, W] in the same way, with ``seeds`` [B] int64 on
    their device, in one pass over a decoded batch. It draws other random numbers than ``augmented``.
    """

    plain: Callable[[Any], Tensor]
    augmented: Callable[[Any, int], Tensor]
    augment_batch: Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class ReIDData:
    """A training part, whose identities are never used to train, and a query and a gallery for the evaluation.

    If ``query`` or ``gallery`` is None, there is no evaluation. ``make_views(encoder)`` returns the views for an
    encoder's input size and normalisation. ``protocols`` says how query and gallery are compared, the main protocol
    first; by default Market-1501's. ``findings``: the findings while reading. ``infrared_cams``: the infrared cameras.
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
        present = [f"{len(part):,} {name}" for name, part in others.items() if part is not None]
        missing = [name for name, part in others.items() if part is None]
        named = [*present, *([f"no {' and '.join(missing)}"] if missing else [])]
        return f"{self.name}: {counted(len(self.train), 'training image')}, {', '.join(named)}"

    def is_infrared(self) -> Tensor:
        """[N] bool: which training images are infrared."""
        if self.train.cams is None:
            return torch.zeros(len(self.train), dtype=torch.bool)
        return torch.isin(self.train.cams, torch.tensor(self.infrared_cams, dtype=torch.int64))

    def ignoring_cameras(self) -> ReIDData:
        """The same data with unknown cameras in query and gallery, so that ranking leaves nothing out."""
        query, gallery = (part and replace(part, cams=None) for part in (self.query, self.gallery))
        return replace(self, query=query, gallery=gallery)
