"""Two parts whose images are drawn from together: those to learn from without labels, and a labelled source's."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from torch.utils.data import ConcatDataset

from ccfast.data.cache import ImageCache, decoded
from ccfast.data.reid_data import Part, ReIDData


def images_of(train: Part, source: Part | None) -> Sequence[Any]:
    """The images of ``train``, and after them those of ``source``."""
    return train.images if source is None else ConcatDataset([train.images, source.images])


def decoded_together(
    data: ReIDData, source: Part | None, view: Any, **options: Any
) -> tuple[ReIDData, Part | None, Sequence[Any]]:
    """``data`` and ``source`` with their images in caches, and :func:`images_of` both, in one that shares its memory.

    The ``options`` are those of :func:`ccfast.data.cache.decoded`.
    """
    if source is None:
        kept = decoded(data, view, **options)
        return kept, None, kept.train.images
    both = Part(images_of(data.train, source), None)
    kept = decoded(dataclasses.replace(data, train=both), view, **options)
    together, first = kept.train.images, len(data.train)
    assert isinstance(together, ImageCache)
    own, others = ImageCache(together.pixels[:first]), ImageCache(together.pixels[first:])
    kept = dataclasses.replace(kept, train=dataclasses.replace(data.train, images=own))
    return kept, dataclasses.replace(source, images=others), together
