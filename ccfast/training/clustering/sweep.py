"""The clusters at each eps on some features, and the best eps without known identities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ccfast.training.clustering.pseudo_labels import (
    SEARCH_LIMIT,
    PseudoLabels,
    by_dbscan,
    some_of,
    structural_tie,
    to_measure,
)
from ccfast.training.clustering.silhouette import silhouette
from ccfast.training.config import ClusterOptions
from ccfast.training.group import ALONE, Group
from ccfast.training.shard import Shard
from ccfast.training.stopwatch import Stopwatch

#: An eps with a larger share of noise is not chosen.
MOST_NOISE = 0.5

#: Values of eps in a sweep, without structural ties.
GRID = tuple(step / 20 for step in range(4, 16))


@dataclass(frozen=True, eq=False)
class Trial:
    """The result at ``eps``: the labels and the number of ``clusters``; ``noise`` and ``largest`` are shares of images.

    ``silhouette``: of the clustered images, in [-1, 1]; None with fewer than two clusters.
    """

    eps: float
    found: PseudoLabels
    clusters: int
    noise: float
    largest: float
    silhouette: float | None

    @property
    def score(self) -> float:
        """The silhouette times the squared share of clustered images; -1 without a silhouette.

        A smaller eps gives tighter clusters with fewer images; the share without the square would have too little
        weight.
        """
        return -1.0 if self.silhouette is None else self.silhouette * (1 - self.noise) ** 2


def sweep(features: Tensor | Shard, options: ClusterOptions, limit: int = SEARCH_LIMIT) -> list[Trial]:
    """One trial per eps of :data:`GRID`, on at most ``limit`` of ``features`` [N, D] of unit norm.

    A sample is less dense than all images: with more than ``limit`` images the numbers are only approximate.
    """
    some, _ = some_of(features, limit)
    return _trials(some, options, Stopwatch(some.device), ALONE)


def _trials(features: Tensor | Shard, options: ClusterOptions, watch: Stopwatch, group: Group) -> list[Trial]:
    radii = [eps for eps in GRID if structural_tie(eps, options.k2) is None]
    found = by_dbscan(features, options, radii, watch, group)
    with watch("dbscan"):
        some, rows = to_measure(features)
        return [_trial(some, rows, eps, one) for eps, one in zip(radii, found, strict=True)]


def _trial(some: Tensor, rows: Tensor, eps: float, found: PseudoLabels) -> Trial:
    images, known = len(found.labels), silhouette(some, found.labels[rows])
    return Trial(eps, found, found.clusters, found.noise / images, found.largest / images, known)


def best(trials: Sequence[Trial]) -> Trial | None:
    """The trial with the highest :attr:`Trial.score` among those with at most half of the images noise.

    If all have more noise: among all with two clusters; None if there are none.
    """
    whole = [trial for trial in trials if trial.silhouette is not None]
    choice = [trial for trial in whole if trial.noise <= MOST_NOISE] or whole
    return max(choice, key=lambda trial: trial.score, default=None)


def find_by_best_eps(features: Tensor | Shard, options: ClusterOptions, watch: Stopwatch, group: Group) -> PseudoLabels:
    """The labels at the best eps on all ``features``, for ``--eps auto`` in each epoch."""
    trials = _trials(features, options, watch, group)
    return trials[group.from_main(lambda: trials.index(best(trials) or trials[-1]))].found


def told(trial: Trial) -> str:
    """ "eps 0.5: 41 clusters, 10% noise, the largest 5%"."""
    return f"eps {trial.eps:g}: {trial.clusters} clusters, {trial.noise:.0%} noise, the largest {trial.largest:.0%}"
