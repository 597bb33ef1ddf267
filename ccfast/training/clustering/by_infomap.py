"""``--cluster infomap``."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from ccfast._errors import InputError
from ccfast.training.clustering.base import SEARCH, Clusterer
from ccfast.training.recipes import INFOMAP_K1

if TYPE_CHECKING:
    from ccfast.training.clustering.pseudo_labels import PseudoLabels
    from ccfast.training.config import ClusterOptions
    from ccfast.training.group import Group
    from ccfast.training.shard import Shard
    from ccfast.training.stopwatch import Stopwatch


class ByInfoMap(Clusterer):
    """InfoMap on the graph of nearest neighbours (:func:`ccfast.infomap`)."""

    uses: ClassVar[tuple[str, ...]] = ("k1", "min_similarity", "min_cluster_size", *SEARCH)
    recipe: ClassVar[dict[str, Any]] = {"k1": INFOMAP_K1}

    @staticmethod
    def check(options: ClusterOptions) -> None:
        """The package must be installed."""
        if importlib.util.find_spec("infomap") is None:
            raise InputError("--cluster infomap needs the package infomap: pip install 'ccfast[infomap]'")

    @staticmethod
    def find(features: Tensor | Shard, options: ClusterOptions, watch: Stopwatch, group: Group) -> PseudoLabels:
        """Labels by InfoMap."""
        from ccfast.training.clustering.pseudo_labels import by_infomap

        return by_infomap(features, options, watch, group)

    @staticmethod
    def advice(found: PseudoLabels, features: Tensor | Shard, options: ClusterOptions) -> str:
        """Another threshold for links."""
        direction = "larger" if found.clusters else "smaller"
        return f"Try a {direction} --min-similarity than {options.min_similarity:g}."

    @staticmethod
    def against_giants(features: Tensor | Shard, options: ClusterOptions) -> str:
        """Fewer links."""
        return f"Try a larger --min-similarity than {options.min_similarity:g}, or a smaller --k1 than {options.k1}."
