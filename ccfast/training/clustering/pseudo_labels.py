"""Steps 2 and 3 of an epoch: from features to cluster labels, and the messages if there are none."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

import ccfast
from ccfast import _checks as checks
from ccfast._errors import RunError
from ccfast._progress import clock
from ccfast._words import counted
from ccfast.training.clustering import clusterer, sharded
from ccfast.training.config import ClusterOptions
from ccfast.training.group import ALONE, Group
from ccfast.training.recipes import AUTO, PAPER
from ccfast.training.shard import Shard

if TYPE_CHECKING:
    from ccfast.training.stopwatch import Stopwatch


log = logging.getLogger(__name__)

PAPER_EPS = PAPER["eps"]

#: If the clusters are fewer than those of the first epoch divided by this, the features may have collapsed.
COLLAPSE = 4
AGAINST_COLLAPSE = "Try --freeze-bn or a smaller --lr."


@dataclass(frozen=True)
class PseudoLabels:
    """``labels`` [N]: 0 .. clusters - 1, or -1 for noise; ``eps``: the eps of DBSCAN, or None."""

    labels: Tensor
    eps: float | None = None

    @property
    def clusters(self) -> int:
        """The number of clusters."""
        return int(self.labels.max()) + 1

    @property
    def noise(self) -> int:
        """The number of images in no cluster."""
        return int((self.labels == -1).sum())

    @property
    def largest(self) -> int:
        """The number of images in the largest cluster."""
        inside = self.labels[self.labels >= 0]
        return int(inside.bincount().max()) if len(inside) else 0

    def as_classes(self, options: ClusterOptions) -> Tensor:
        """The labels for training: with ``--noise single`` each noise image is a separate class.

        These classes come after the clusters, in the order of the images.
        """
        if options.noise == "drop":
            return self.labels
        outside = self.labels == -1
        return torch.where(outside, outside.cumsum(0) - 1 + self.clusters, self.labels)

    def clusters_alone(self) -> PseudoLabels:
        """The reverse of :meth:`as_classes`: classes of one image become noise again."""
        inside = self.labels >= 0
        sizes = self.labels[inside].bincount()
        number = torch.where(sizes > 1, (sizes > 1).cumsum(0) - 1, -1)
        labels = self.labels.clone()
        labels[inside] = number[self.labels[inside]]
        return PseudoLabels(labels, self.eps)


def pseudo_labels(
    features: Tensor | Shard, options: ClusterOptions, watch: Stopwatch, group: Group = ALONE
) -> PseudoLabels:
    """Cluster ``features`` [N, D] of unit norm; the processes of ``group`` share the work.

    Either all processes have all features, or each has a shard of them.
    """
    return clusterer(options.cluster).find(features, options, watch, group)


def chosen_eps(eps: float) -> str:
    """The eps that ``--eps auto`` has chosen, in messages."""
    return f"eps {eps:g} (auto)"


def by_infomap(features: Tensor | Shard, options: ClusterOptions, watch: Stopwatch, group: Group) -> PseudoLabels:
    """Labels by InfoMap."""
    arguments = (features, options.k1, options.min_similarity, options.min_cluster_size)
    with watch("infomap"), clock("neighbours and InfoMap"):
        given = _given(features, options, group)
        if isinstance(features, Tensor) and group.size == 1:
            return PseudoLabels(ccfast.infomap(*arguments, neighbours=given))
        return PseudoLabels(sharded.infomap(*arguments, neighbours=given, group=group))


def by_dbscan(
    features: Tensor | Shard, options: ClusterOptions, radii: Sequence[float], watch: Stopwatch, group: Group
) -> list[PseudoLabels]:
    """Labels at each of ``radii``, from distances that are computed once."""
    distances = jaccard_distances(features, options, max(radii), watch, group)
    with watch("dbscan"), clock("DBSCAN"):
        return [PseudoLabels(ccfast.dbscan(distances, radius, options.min_samples), eps=radius) for radius in radii]


def jaccard_distances(
    features: Tensor | Shard, options: ClusterOptions, limit: float, watch: Stopwatch, group: Group
) -> Tensor:
    """The Jaccard distances up to ``limit``, sparse."""
    arguments = (features, options.k1, options.k2)
    with watch("jaccard"), clock("Jaccard distances"):
        given = _given(features, options, group)
        if isinstance(features, Tensor) and group.size == 1:
            return ccfast.jaccard_distance(*arguments, max_distance=limit, neighbours=given)
        return sharded.jaccard_distance(*arguments, max_distance=limit, neighbours=given, group=group)


@dataclass(frozen=True)
class Clustering:
    """``cluster(features)`` with the options of a run, for methods; ``first``: clusters of the run's first epoch.

    The processes of ``group`` share the work; either all have all features, or each has a shard of them. ``found``
    collects the results.
    """

    options: ClusterOptions
    watch: Stopwatch
    group: Group = ALONE
    first: int | None = None
    found: list[PseudoLabels] = field(default_factory=list)

    def __call__(self, features: Tensor | Shard, image: str = "image") -> Tensor:
        """Labels ``[N]`` of ``features`` ``[N, D]`` of unit norm, -1 for noise.

        ``image``: the name of one of them in the RunError that ends the run if there are fewer than two clusters.
        """
        found = pseudo_labels(features, self.options, self.watch, self.group)
        self.found.append(found)
        require_clusters(found, features, self.options, self.first, image)
        return found.as_classes(self.options)

    def best_eps(self, features: Tensor | Shard) -> float | None:
        """The eps that ``--eps auto`` chooses for ``features``."""
        return pseudo_labels(features, self.options, self.watch, self.group).eps

    def at_radii(self, features: Tensor | Shard, radii: Sequence[float]) -> list[Tensor]:
        """Labels ``[N]`` at each of ``radii`` by DBSCAN; the first must have two or more clusters."""
        found = by_dbscan(features, self.options, radii, self.watch, self.group)
        self.found.append(found[0])
        require_clusters(found[0], features, self.options, self.first)
        return [one.labels for one in found]

    @property
    def eps(self) -> float | None:
        """The eps of DBSCAN; with several sets of images the largest; None without DBSCAN."""
        return max((one.eps for one in self.found if one.eps is not None), default=None)


def _given(features: Tensor | Shard, options: ClusterOptions, group: Group) -> tuple[Tensor, Tensor] | None:
    """The neighbours from faiss, or None if ccfast searches them."""
    if options.neighbours == "exact":
        return None
    from ccfast.training.clustering.faiss_search import by_faiss

    whole = features if isinstance(features, Tensor) else features.gathered()  # an index needs all rows
    check_unit_rows(whole, options)
    return by_faiss(whole, options, group)


def check_unit_rows(features: Tensor, options: ClusterOptions) -> None:
    """Check the features as the clustering does, before an index is built."""
    checks.unit_rows("features", checks.unit_features("features", features))
    checks.integer("k1", options.k1, low=1, high=len(features), high_name="the number of rows of features")


#: Distances that are equal within rounding differ by less than this.
ROUNDING = 1e-5


def structural_tie(eps: float, k2: int) -> int | None:
    """The number of common rows for which ``eps`` is a structural tie, or None.

    The encodings of two rows are means of those of their k2 nearest rows. If the encodings share only ``a`` common
    rows, the distance is ``1 - a / (2 * k2 - a)``, for any features.
    """
    common = range(1, k2 + 1)
    return next((a for a in common if abs(eps - _distance_at(a, k2)) <= ROUNDING), None)


def _distance_at(common: int, k2: int) -> float:
    return 1 - common / (2 * k2 - common)


def safe_eps(common: int, k2: int) -> list[float]:
    """Values of eps on both sides of the tie of ``common`` rows: 0.05 away, or halfway to the next tie."""
    tie = _distance_at(common, k2)
    beside = [_distance_at(next_to, k2) for next_to in (common + 1, common - 1) if next_to <= k2]
    return [_rounded(tie + max(-0.05, min(0.05, (other - tie) / 2)), k2) for other in beside]


def _rounded(eps: float, k2: int) -> float:
    """``eps`` with the fewest digits that avoid the ties, at least three."""
    rounded = (float(f"{eps:.{digits}g}") for digits in range(3, 9))
    return next((value for value in rounded if structural_tie(value, k2) is None), eps)


def warn_of_structural_tie(options: ClusterOptions) -> None:
    """Warn if many pairs have the distance eps within rounding, and name safe values near it."""
    if options.cluster != "dbscan" or options.eps == AUTO:
        return
    common = structural_tie(options.eps, options.k2)
    if common is None:
        return
    log.warning(
        "--eps %g with --k2 %d: images that share %d of their %d nearest have this Jaccard distance within rounding, "
        "so labels depend on the last bit of a number. Use --eps %s.",
        options.eps, options.k2, common, options.k2, " or ".join(f"{eps:g}" for eps in safe_eps(common, options.k2)),
    )  # fmt: skip


def require_clusters(
    found: PseudoLabels, features: Tensor | Shard, options: ClusterOptions, first: int | None, image: str = "image"
) -> None:
    """Stop the run if there are fewer than two clusters; ``first`` is the number in the run's first epoch.

    Continuing would not help: without clusters there is no loss, and the next epoch would find the same.
    """
    if found.clusters >= 2:
        return
    what = "one cluster" if found.clusters else "no cluster"
    message = (
        f"{what} among {counted(len(features), image)} ({found.noise} noise): training needs at least two clusters."
    )
    if first is not None and first >= 2:
        message += f" The run began with {first} clusters: the features have collapsed. {AGAINST_COLLAPSE}"
    raise RunError(f"{message} {advice(found, features, options)}")


#: A cluster is a giant if it has more than this share of the images, and more than this number of times the images of
#: the other clusters on average.
GIANT_SHARE, GIANT_TIMES = 0.1, 5


def is_giant(found: PseudoLabels) -> bool:
    """Whether the largest cluster is a giant, which may mix different identities."""
    return found.largest > GIANT_SHARE * len(found.labels) and found.largest > GIANT_TIMES * _others(found)


def _others(found: PseudoLabels) -> float:
    """The average number of images of the clusters without the largest one."""
    return (len(found.labels) - found.noise - found.largest) / max(1, found.clusters - 1)


def warn_of_giant(found: PseudoLabels, features: Tensor | Shard, options: ClusterOptions) -> bool:
    """Warn about a giant cluster and say what to try; returns whether it warned.

    If each process has a shard of the features, all processes call it.
    """
    if found.clusters < 2 or not is_giant(found):
        return False
    log.warning(
        "one of the %d clusters has %.0f%% of the images (%d of %d, the others %.0f on average): it may hold different "
        "things. %s",
        found.clusters, 100 * found.largest / len(found.labels), found.largest, len(found.labels), _others(found),
        clusterer(options.cluster).against_giants(features, options),
    )  # fmt: skip
    return True


def warn_of_collapse(found: PseudoLabels, first: int) -> None:
    """Warn if most of the clusters of the run's first epoch are gone."""
    if found.clusters < first / COLLAPSE:
        log.warning(
            "only %d clusters are left of the %d that the run began with: the features may be collapsing. %s",
            found.clusters, first, AGAINST_COLLAPSE,
        )  # fmt: skip


def advice(found: PseudoLabels, features: Tensor | Shard, options: ClusterOptions) -> str:
    """The value of the clustering's option to try."""
    return clusterer(options.cluster).advice(found, features, options)


#: With more images than this, eps is searched on a random sample, because the search keeps most of the N x N distances.
SEARCH_LIMIT = 5_000


def suggested_eps(features: Tensor | Shard, options: ClusterOptions) -> tuple[float, int, float] | None:
    """The eps nearest to the published one that gives at least two clusters with most of the images.

    Returns it with its number of clusters and share of noise; None if no eps in 0.05, 0.1, ..., 0.95 gives two
    clusters. Structural ties are skipped.
    """
    features, _ = some_of(features, SEARCH_LIMIT)
    grid = [step / 20 for step in range(1, 20) if structural_tie(step / 20, options.k2) is None]
    distances = ccfast.jaccard_distance(features, options.k1, options.k2, max_distance=grid[-1])
    tried = []
    for eps in grid:
        found = PseudoLabels(ccfast.dbscan(distances, eps, options.min_samples))
        if found.clusters >= 2:
            tried.append((eps, found.clusters, found.noise / len(features)))
    return min(tried, key=lambda trial: (trial[2] > 0.5, abs(trial[0] - PAPER_EPS)), default=None)


def some_of(features: Tensor | Shard, limit: int) -> tuple[Tensor, Tensor]:
    """The features, or a random sample of ``limit`` of them if there are more, and their row numbers.

    The result is the same in every process; if each has a shard, all processes call it.
    """
    chosen = some_rows(len(features), limit).to(features.device)
    if len(features) <= limit:
        return features if isinstance(features, Tensor) else features.gathered(), chosen
    return features[chosen] if isinstance(features, Tensor) else features.fetch(chosen), chosen


def some_rows(count: int, limit: int) -> Tensor:
    """The numbers of ``count`` rows, or a random sample of ``limit`` of them if there are more, ascending."""
    if count <= limit:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:limit].sort()[0]


def to_measure(features: Tensor | Shard) -> tuple[Tensor, Tensor]:
    """The features for the silhouette, and their row numbers: all, or a sample if each process has a shard."""
    return some_of(features, len(features) if isinstance(features, Tensor) else SEARCH_LIMIT)
