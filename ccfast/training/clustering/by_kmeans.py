"""``--cluster kmeans``: scikit-learn's k-means on the features."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from ccfast import _checks as checks
from ccfast._errors import InputError
from ccfast._progress import clock
from ccfast._words import counted
from ccfast.training.clustering.base import Clusterer, numbered

if TYPE_CHECKING:
    from ccfast.training.clustering.pseudo_labels import PseudoLabels
    from ccfast.training.config import ClusterOptions
    from ccfast.training.group import Group
    from ccfast.training.shard import Shard
    from ccfast.training.stopwatch import Stopwatch


class ByKMeans(Clusterer):
    """k-means with ``--num-clusters`` clusters, with one k-means++ initialisation; no image is noise."""

    uses: ClassVar[tuple[str, ...]] = ("num_clusters",)

    @staticmethod
    def check(options: ClusterOptions) -> None:
        """The number of clusters is required."""
        if options.num_clusters is None:
            raise InputError("--num-clusters: expected the number of clusters for --cluster kmeans, got none")

    @staticmethod
    def find(features: Tensor | Shard, options: ClusterOptions, watch: Stopwatch, group: Group) -> PseudoLabels:
        """Labels by k-means, numbered in the order of the clusters' first images; with a fixed seed."""
        from ccfast.training.clustering.pseudo_labels import PseudoLabels

        whole = features if isinstance(features, Tensor) else features.gathered()  # k-means needs all rows
        rows = checks.unit_features("features", whole)
        checks.unit_rows("features", rows)
        if options.num_clusters > len(rows):
            raise InputError(
                f"--num-clusters: expected at most the {counted(len(rows), 'image')}, got {options.num_clusters}"
            )
        with watch("kmeans"), clock("k-means"):
            labels = group.from_main(lambda: _labels(rows.cpu().numpy(), options.num_clusters))
        return PseudoLabels(torch.from_numpy(labels).to(features.device))

    @staticmethod
    def advice(found: PseudoLabels, features: Tensor | Shard, options: ClusterOptions) -> str:
        """A single cluster means that all features are equal."""
        return "All features are equal: check the images and the weights."

    @staticmethod
    def against_giants(features: Tensor | Shard, options: ClusterOptions) -> str:
        """More clusters."""
        return f"Try a larger --num-clusters than {options.num_clusters}."


def _labels(rows: np.ndarray, clusters: int) -> np.ndarray:
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different rows than clusters
        found = KMeans(clusters, n_init=1, random_state=0).fit_predict(rows)
    return numbered(found)
