"""``--cluster hdbscan``: scikit-learn's HDBSCAN on the sparse Jaccard distances."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from ccfast._progress import clock
from ccfast.training.clustering.base import SEARCH, Clusterer, numbered
from ccfast.training.clustering.by_dbscan import ByDBSCAN

if TYPE_CHECKING:
    from ccfast.training.clustering.pseudo_labels import PseudoLabels
    from ccfast.training.config import ClusterOptions
    from ccfast.training.group import Group
    from ccfast.training.shard import Shard
    from ccfast.training.stopwatch import Stopwatch

#: Larger distances count as 1, the largest Jaccard distance; such pairs share little or nothing.
LARGEST = 0.8

#: Replaces the distance 0, because scikit-learn reads a stored 0 as "no neighbour".
LEAST = 1e-7


class ByHDBSCAN(Clusterer):
    """HDBSCAN with ``--min-cluster-size`` and ``--min-samples``; it needs no eps."""

    uses: ClassVar[tuple[str, ...]] = ("k1", "k2", "min_samples", "min_cluster_size", *SEARCH)
    check = ByDBSCAN.check

    @staticmethod
    def find(features: Tensor | Shard, options: ClusterOptions, watch: Stopwatch, group: Group) -> PseudoLabels:
        """Labels by HDBSCAN, numbered in the order of the clusters' first images."""
        from ccfast.training.clustering.pseudo_labels import PseudoLabels, jaccard_distances

        distances = jaccard_distances(features, options, LARGEST, watch, group)
        with watch("hdbscan"), clock("HDBSCAN"):
            labels = group.from_main(lambda: hdbscan_labels(distances, options.min_samples, options.min_cluster_size))
        return PseudoLabels(torch.from_numpy(labels).to(features.device))

    @staticmethod
    def advice(found: PseudoLabels, features: Tensor | Shard, options: ClusterOptions) -> str:
        """Smaller clusters."""
        return (
            f"Try a smaller --min-cluster-size than {options.min_cluster_size}, or a smaller --min-samples than "
            f"{options.min_samples}."
        )

    @staticmethod
    def against_giants(features: Tensor | Shard, options: ClusterOptions) -> str:
        """A finer density."""
        return (
            f"Try a smaller --k1 than {options.k1}, or a larger --min-samples than {options.min_samples}: then fewer "
            "chance neighbours link clusters."
        )


def hdbscan_labels(distances: Tensor, min_samples: int, min_cluster_size: int) -> np.ndarray:
    """Labels [N] int64 of the sparse CSR ``distances`` [N, N]; pairs that it does not store have the distance 1.

    ``min_samples`` counts the image itself, as in DBSCAN.
    """
    from sklearn.cluster import HDBSCAN

    size = distances.shape[0]
    if size < max(2, min_samples):
        return np.full(size, -1, np.int64)
    matrix = _whole_graph(distances, min_samples)
    least = max(2, min_cluster_size)  # HDBSCAN has no clusters of one image
    search = HDBSCAN(min_cluster_size=least, min_samples=min_samples, metric="precomputed", copy=False)
    return numbered(search.fit_predict(matrix).astype(np.int64))


def _whole_graph(distances: Tensor, min_samples: int) -> csr_array:
    """The distances, with enough pairs at the distance 1 for HDBSCAN.

    It needs a connected graph in which each row has ``min_samples`` entries, counting itself.
    """
    rows, columns = distances.crow_indices().cpu().numpy(), distances.col_indices().cpu().numpy()
    values = np.maximum(distances.values().cpu().numpy().astype(np.float64), LEAST)
    size = len(rows) - 1
    held = csr_array((values, columns, rows), shape=(size, size))
    held.setdiag(LEAST)
    few = np.flatnonzero(np.diff(held.indptr) < min_samples)
    parts, part = connected_components(held, directed=False)
    _, first = np.unique(part, return_index=True)
    far = [(np.full(parts - 1, first[0]), first[1:])]
    for row in few.tolist():
        known = held.indices[held.indptr[row] : held.indptr[row + 1]]
        others = np.setdiff1d(np.arange(min(size, 2 * min_samples)), known)
        far.append((np.full(min(len(others), min_samples), row), others[:min_samples]))
    one, other = (np.concatenate(ends) for ends in zip(*far, strict=True))
    ones = coo_array((np.ones(2 * len(one)), (np.r_[one, other], np.r_[other, one])), shape=(size, size)).tocsr()
    ones.data[:] = 1.0  # a pair may have been added twice
    ones = ones - ones.multiply(held != 0)
    ones.eliminate_zeros()
    return csr_array(held + ones)
