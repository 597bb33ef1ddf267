"""The authors' InfoMap clustering, which does not run with infomap 2."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from ccfast import _checks as checks
from ccfast._infomap import infomap_labels
from ccfast.compat._inputs import array, length, rows
from ccfast.compat.search import inner_product_search
from ccfast.ops.knn import knn

#: Norms within this of 1: the order of distances is that of inner products, to float32's precision.
_UNIT = 1e-5


def get_dist_nbr(features: Any, k: int = 80, knn_method: str = "faiss-cpu") -> tuple[np.ndarray, np.ndarray]:
    """The distances and indices of the ``k`` rows with the highest inner product, for every row.

    Args:
        features: ``[N, D]`` floating-point; rows of unit norm make the inner product the cosine similarity.
        k: neighbours, counting the row itself, from 1 to a million or N.
        knn_method: the faiss index that the authors' code used; ccfast always uses an exact search.

    Returns:
        ``(dists, nbrs)``: ``[N, k]`` float64, 1 - inner product, smallest first, and ``[N, k]`` int32. With ``k > N``
        the rest is index -1 at float32's largest value.

    Raises:
        TypeError: not floating-point.
        ValueError: an empty input, ``k`` out of range, non-finite values.
    """
    points = rows("features", features)
    k = length("k", k, len(points))
    checks.finite_rows("features", points)
    norms = torch.linalg.vector_norm(points.double(), dim=1)
    with _timed(f"[{knn_method}] build index {k}"):
        unit = bool(((norms - 1).abs() <= _UNIT).all()) and k <= len(points)
    with _timed(f"[{knn_method}] query topk {k}"):
        if unit:
            nbrs, squared = knn(points, k)
            dists = squared / 2
        else:
            products, nbrs = inner_product_search(points, points, k)
            dists = (1 - products).float()
    return dists.double().cpu().numpy(), nbrs.int().cpu().numpy()


def cluster_by_infomap(nbrs: Any, dists: Any, min_sim: float, cluster_num: int = 2) -> np.ndarray:
    """InfoMap labels of the directed graph of near neighbours.

    Row i links to its neighbours up to the first whose similarity ``1 - dists`` is below ``min_sim``; the weight is the
    similarity. Each row without links is a separate cluster.

    Args:
        nbrs: ``[N, k]`` integers, nearest first, in the format of :func:`get_dist_nbr`.
        dists: ``[N, k]`` numbers.
        min_sim: lowest similarity of a link.
        cluster_num: clusters with at most this number of images are noise.

    Returns:
        ``[N]`` int64: clusters 0, 1, ... in the order of their lowest member; noise is -1. The partition equals the
        authors'; they number the clusters differently.

    Raises:
        ImportError: the optional package ``infomap`` is missing.
        TypeError, ValueError: arrays of wrong shapes or types, indices out of range, a number out of range.
    """
    nbrs, dists = array("nbrs", nbrs), array("dists", dists)
    min_sim = checks.real("min_sim", min_sim)
    cluster_num = checks.integer("cluster_num", cluster_num, low=0)
    _check_graph(nbrs, dists)
    with _timed("get links"):
        linked = _linked(nbrs, dists, min_sim)
    alone = ~linked.any(axis=1)
    sources, _ = np.nonzero(linked)
    modules = infomap_labels(sources, nbrs[linked], 1 - dists[linked], num_nodes=len(nbrs), min_cluster_size=1)
    # As in the authors' code: a row without links leaves the module that links of other rows may have put it in, and
    # the module keeps its size.
    sizes = np.bincount(modules[modules >= 0], minlength=1)
    labels = np.where((modules >= 0) & (sizes[modules] > cluster_num), modules, -1)
    labels[alone] = -1 if cluster_num else modules.max() + 1 + np.arange(alone.sum())
    labels = _by_lowest_member(labels)
    print(f"孤立点数：{alone.sum()}")
    print(f"总节点数：{len(nbrs)}")
    print(f"总类别数：{modules.max() + 1 + alone.sum()}/{labels.max() + 1}")
    return labels


def _check_graph(nbrs: np.ndarray, dists: np.ndarray) -> None:
    if nbrs.dtype.kind not in "iu":
        raise TypeError(f"nbrs: expected integers, got dtype {nbrs.dtype}")
    if dists.dtype.kind not in "fiu":
        raise TypeError(f"dists: expected numbers, got dtype {dists.dtype}")
    if nbrs.ndim != 2 or nbrs.size == 0 or nbrs.shape != dists.shape:
        raise ValueError(f"nbrs, dists: expected one shape [N, k], got {nbrs.shape} and {dists.shape}")
    if nbrs.min() < -1 or nbrs.max() >= len(nbrs):
        raise ValueError(f"nbrs: expected indices in [0, {len(nbrs)}) or -1, got {nbrs.min()} to {nbrs.max()}")
    if np.isnan(dists).any():
        raise ValueError("dists: expected numbers, got NaN")


def _linked(nbrs: np.ndarray, dists: np.ndarray, min_sim: float) -> np.ndarray:
    """Which entries are links: all but the row itself, up to the first that is too far."""
    itself = nbrs == np.arange(len(nbrs))[:, None]
    near = (dists <= 1 - min_sim) & (nbrs >= 0)
    return np.logical_and.accumulate(near | itself, axis=1) & ~itself


def _by_lowest_member(labels: np.ndarray) -> np.ndarray:
    """The same partition, with the clusters numbered in the order of their lowest member; -1 is unchanged."""
    clustered = labels >= 0
    values, first, inverse = np.unique(labels[clustered], return_index=True, return_inverse=True)
    number = np.empty(len(values), np.int64)
    number[np.argsort(first)] = np.arange(len(values))
    result = np.full(len(labels), -1, np.int64)
    result[clustered] = number[inverse]
    return result


@contextmanager
def _timed(name: str) -> Iterator[None]:
    """Print the seconds that the block took, in the authors' format."""
    start = time.time()
    yield
    print(f"[Time] {name} consumes {time.time() - start:.4f} s")
