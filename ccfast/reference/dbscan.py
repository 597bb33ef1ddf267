"""DBSCAN on precomputed distances (Ester, Kriegel, Sander, Xu, KDD 1996), with scikit-learn's labels."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ccfast import _arguments as arguments
from ccfast import _checks as checks


def dbscan(distances: Tensor, eps: float, min_samples: int = 4) -> Tensor:
    """Density-based clusters of N points from their pairwise distances.

    A point is a core point if at least ``min_samples`` points, counting itself, are within ``eps``. Core points within
    ``eps`` of each other share a cluster. Clusters are numbered in the order of their lowest core index. A border point
    gets the lowest label among the core points within ``eps``; the rest is noise.

    Args:
        distances: symmetric ``[N, N]`` of any floating dtype: dense, or sparse in the formats of :func:`ccfast.dbscan`.
            A pair that a sparse matrix does not store is farther than ``eps``; on the diagonal its distance is 0.
            Distances and ``eps`` are compared in float32 with ``<=``; infinite distances are never within ``eps``.
        eps: radius, at least 0.
        min_samples: number of points of a core, at least 1.

    Returns:
        ``[N]`` int64 labels, -1 for noise, on the device of ``distances``.

    Raises:
        TypeError: not a tensor, another dtype or layout.
        ValueError: not square, empty, NaN, ``eps`` or ``min_samples`` out of range.
    """
    distances, eps, min_samples = arguments.dbscan(distances, eps, min_samples)
    sparse = distances.layout is torch.sparse_csr
    radius = np.float32(min(eps, np.finfo(np.float32).max))
    checks.numbers("distances", distances.values() if sparse else distances)

    within = _within_sparse(distances, radius) if sparse else _within_dense(distances, radius)
    return torch.from_numpy(_label(within, min_samples)).to(distances.device)


def _within_dense(distances: Tensor, eps: np.float32) -> list[np.ndarray]:
    """For each point the points within eps; the diagonal decides about the point itself."""
    return [np.flatnonzero(row.float().cpu().numpy() <= eps) for row in distances]


def _within_sparse(distances: Tensor, eps: np.float32) -> list[np.ndarray]:
    crow = distances.crow_indices().cpu().numpy()
    columns = distances.col_indices().cpu().numpy()
    near = distances.values().float().cpu().numpy() <= eps
    within = []
    for i, (start, end) in enumerate(pairwise(crow)):
        stored, row_near = columns[start:end], near[start:end]
        row = stored[row_near]
        within.append(row if i in stored else np.append(row, i))  # scikit-learn: a missing diagonal entry is 0
    return within


def _label(within: list[np.ndarray], min_samples: int) -> np.ndarray:
    """Fill each cluster from its lowest core point; border points keep the first label that reaches them."""
    core = np.array([len(row) >= min_samples for row in within])
    labels = np.full(len(within), -1, np.int64)
    cluster = 0
    for seed in np.flatnonzero(core):
        if labels[seed] != -1:
            continue
        labels[seed] = cluster
        reached = [seed]
        while reached:
            new = within[reached.pop()]
            new = new[labels[new] == -1]
            labels[new] = cluster
            reached.extend(new[core[new]])
        cluster += 1
    return labels
