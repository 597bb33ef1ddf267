"""The labelled images of ``--source``, from which some methods also learn: their classes, and batches of both kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from ccfast._errors import InputError
from ccfast.data.sampler import BatchSampler


@dataclass(frozen=True)
class Source:
    """``M`` labelled images: ``labels`` [M] int64, their classes from 0; ``cameras`` [M] int64, None if unknown.

    ``extract()`` computes their features [M, D] with the current encoder.
    """

    labels: Tensor
    cameras: Tensor | None
    extract: Callable[[], Tensor]

    @cached_property
    def num_classes(self) -> int:
        """The number of classes."""
        return int(self.labels.max()) + 1


def class_labels(ids: Tensor | None, name: str) -> Tensor:
    """``[N]`` int64, the identities ``ids`` [N] of training images numbered from 0; ``name``: of the data set.

    Raises:
        InputError: the identities are unknown, or there is only one.
    """
    if ids is None:
        raise InputError(f"{name}: the identities of its training images are unknown")
    identities, labels = ids.unique(return_inverse=True)
    if len(identities) < 2:
        raise InputError(
            f"{name}: expected training images of two or more identities, got {len(identities)}: there is nothing to "
            "learn from"
        )
    return labels


class WithSource(BatchSampler):
    """The batches of two samplers joined: each batch of ``target`` is followed by one of ``source``.

    The indices of the source's images begin at ``first``. Target images come first, so that BatchNorm's first group,
    which its running statistics follow, consists of them.
    """

    def __init__(self, target: BatchSampler, source: BatchSampler, first: int) -> None:
        self.target, self.source, self.first = target, source, first

    @property
    def batch_size(self) -> int:
        """The number of images in every batch."""
        return self.target.batch_size + self.source.batch_size

    def __len__(self) -> int:
        return len(self.target)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for target, source in zip(self.target, self.source, strict=True):
            yield [*target, *((self.first + index, seed) for index, seed in source)]
