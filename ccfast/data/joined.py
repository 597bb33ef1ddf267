"""Batches from two parts together: the unlabelled training images, and the images of a labelled source."""

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
    """``data`` and ``source`` with cached images, and :func:`images_of` both; all three share one cache.

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
