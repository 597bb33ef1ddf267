"""The interface between the training loop and a clustering."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from ccfast.training.clustering.pseudo_labels import PseudoLabels
    from ccfast.training.config import ClusterOptions
    from ccfast.training.group import Group
    from ccfast.training.shard import Shard
    from ccfast.training.stopwatch import Stopwatch


#: The options of the search for neighbours.
SEARCH = ("neighbours", "faiss_index", "faiss_search")


class Clusterer(ABC):
    """A way to find clusters. ``recipe``: its default options; ``uses``: the options of clusterings that it uses."""

    recipe: ClassVar[dict[str, Any]] = {}
    uses: ClassVar[tuple[str, ...]]

    @staticmethod  # noqa: B027
    def check(options: ClusterOptions) -> None:
        """Raise InputError if ``options`` do not fit this clustering, or if a package is missing."""

    @staticmethod
    @abstractmethod
    def find(features: Tensor | Shard, options: ClusterOptions, watch: Stopwatch, group: Group) -> PseudoLabels:
        """Cluster ``features`` [N, D] of unit norm; the processes of ``group``, which all have them, share the work."""

    @staticmethod
    @abstractmethod
    def advice(found: PseudoLabels, features: Tensor | Shard, options: ClusterOptions) -> str:
        """A sentence about what to try if ``found`` has fewer than two clusters."""

    @staticmethod
    @abstractmethod
    def against_giants(features: Tensor | Shard, options: ClusterOptions) -> str:
        """A sentence about what to try if one cluster holds far too many images."""


def numbered(labels: np.ndarray) -> np.ndarray:
    """``labels`` as int64, with the clusters numbered in the order of their first images; -1 is unchanged."""
    found, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    order = np.argsort(np.where(found >= 0, first, -1))
    number = np.empty(len(found), np.int64)
    number[order] = np.arange(len(found)) - int((found < 0).any())
    return number[inverse]
