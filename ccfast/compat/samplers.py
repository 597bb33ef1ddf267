"""The authors' samplers with the same draws; theirs do not run if ``Sampler()`` takes no arguments."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

from ccfast import _checks as checks


class RandomMultipleGallerySamplerNoCam(Sampler[int]):
    """Every identity once, in random order, with ``num_instances`` of its images: an anchor and others.

    The draws, in this order: ``torch.randperm`` of the identities; for each, ``random.choice`` of the anchor and
    ``numpy.random.choice`` of the others, without replacement if there are at least ``num_instances`` of them.
    An identity with one image gives only that image.

    Args:
        data_source: sequence of (name, identity, camera); negative identities (noise) are left out.
        num_instances: images per identity in one pass, at least 1.

    Attributes:
        pids: identities, in the order of their first image.
        pid_index: identity -> its images.
        index_pid: image -> its identity.
        num_samples: number of identities.

    Raises:
        ValueError: ``num_instances`` below 1, an entry that is not a triple.
    """

    def __init__(self, data_source: Sequence[tuple[Any, Any, Any]], num_instances: int = 4) -> None:
        super().__init__()
        self.data_source = data_source
        self.num_instances = checks.integer("num_instances", num_instances, low=1)
        self.index_pid: dict[int, Any] = defaultdict(int)
        self.pid_cam: dict[Any, list[Any]] = defaultdict(list)
        self.pid_index: dict[Any, list[int]] = defaultdict(list)
        for index, entry in enumerate(data_source):
            if len(entry) != 3:
                raise ValueError(f"data_source: expected triples (name, identity, camera), got {entry!r} at {index}")
            _, identity, camera = entry
            if identity >= 0:
                self.index_pid[index] = identity
                self.pid_cam[identity].append(camera)
                self.pid_index[identity].append(index)
        self.pids = list(self.pid_index)
        self.num_samples = len(self.pids)

    def __len__(self) -> int:
        """Identities times ``num_instances``: more than the length of a pass if an identity has one image."""
        return self.num_samples * self.num_instances

    def __iter__(self) -> Iterator[int]:
        drawn: list[int] = []
        for place in torch.randperm(self.num_samples).tolist():
            identity = self.pids[place]
            images = self.pid_index[identity]
            anchor = random.choice(images)
            drawn.append(anchor)
            others = self._others(identity, anchor)
            if others:
                replace = len(others) < self.num_instances
                chosen = np.random.choice(others, size=self.num_instances - 1, replace=replace)
                drawn.extend(images[position] for position in chosen)
        return iter(drawn)

    def _others(self, identity: Any, anchor: int) -> list[int]:
        """The positions, among the identity's images, from which the others are drawn."""
        return [position for position, image in enumerate(self.pid_index[identity]) if image != anchor]


class RandomMultipleGallerySampler(RandomMultipleGallerySamplerNoCam):
    """:class:`RandomMultipleGallerySamplerNoCam`, with the others from other cameras than the anchor's.

    If an identity has no image from another camera, cameras are ignored. Arguments, attributes and errors are those of
    the other sampler; the additional attribute ``pid_cam`` maps an identity to the cameras of its images.
    """

    def _others(self, identity: Any, anchor: int) -> list[int]:
        camera = self.data_source[anchor][2]
        elsewhere = [position for position, other in enumerate(self.pid_cam[identity]) if other != camera]
        return elsewhere or super()._others(identity, anchor)
