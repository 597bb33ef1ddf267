"""``--cluster dbscan``, at a given eps or at one chosen from each epoch's features."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from ccfast._errors import InputError
from ccfast._words import counted
from ccfast.training.clustering.base import SEARCH, Clusterer
from ccfast.training.recipes import AUTO

if TYPE_CHECKING:
    from ccfast.training.clustering.pseudo_labels import PseudoLabels
    from ccfast.training.config import ClusterOptions
    from ccfast.training.group import Group
    from ccfast.training.shard import Shard
    from ccfast.training.stopwatch import Stopwatch


class ByDBSCAN(Clusterer):
    """DBSCAN on the k-reciprocal Jaccard distances, as published."""

    uses: ClassVar[tuple[str, ...]] = ("eps", "k1", "k2", "min_samples", *SEARCH)

    @staticmethod
    def check(options: ClusterOptions) -> None:
        """The query expansion averages neighbours, so k2 is at most k1."""
        if options.k2 > options.k1:
            raise InputError(f"--k2: expected at most --k1 ({options.k1}), got {options.k2}")

    @staticmethod
    def find(features: Tensor | Shard, options: ClusterOptions, watch: Stopwatch, group: Group) -> PseudoLabels:
        """Labels by DBSCAN."""
        from ccfast.training.clustering.pseudo_labels import by_dbscan
        from ccfast.training.clustering.sweep import find_by_best_eps

        if options.eps == AUTO:
            return find_by_best_eps(features, options, watch, group)
        return by_dbscan(features, options, (options.eps,), watch, group)[0]

    @staticmethod
    def advice(found: PseudoLabels, features: Tensor | Shard, options: ClusterOptions) -> str:
        """An eps that gives clusters."""
        from ccfast.training.clustering.pseudo_labels import suggested_eps

        suggestion = suggested_eps(features, options)
        if suggestion is None:
            return f"No --eps gives two or more clusters{hint_without_eps(len(features), found.clusters, options)}."
        eps, clusters, noise = suggestion
        return f"Try --eps {eps:g}: on these features it gives {clusters} clusters, {noise:.0%} noise."

    @staticmethod
    def against_giants(features: Tensor | Shard, options: ClusterOptions) -> str:
        """The clusters at other values of eps, and the best of these values."""
        from ccfast.training.clustering.sweep import best, sweep, told

        trials = sweep(features, options)
        chosen = best(trials)
        words = f"On these features: {'; '.join(told(trial) for trial in trials if trial.clusters)}."
        return words if chosen is None else f"{words} Try --eps {chosen.eps:g}, or --eps auto."


def hint_without_eps(rows: int, clusters: int, options: ClusterOptions) -> str:
    """What to try, or why, if no eps gives two clusters of ``rows`` rows; ``clusters`` is the number that was found."""
    words = ""
    if rows < 2 * options.min_samples:
        words = (
            f": {counted(rows, 'row')} {'is' if rows == 1 else 'are'} too few for --min-samples {options.min_samples}"
        )
    if clusters or options.min_samples <= 2:  # smaller values would only join more rows
        return words
    return f"{words}; try a smaller --min-samples than {options.min_samples}"
