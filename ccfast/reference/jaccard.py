"""Jaccard distance of k-reciprocal encodings.

Zhong, Zheng, Cao, Li: "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017, with the weights
that Cluster Contrast (Dai et al., 2021) and its predecessors use for clustering.

A sparse row is a pair ``(columns, values)`` of NumPy arrays, columns ascending.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ccfast import _arguments as arguments
from ccfast import _checks as checks
from ccfast.reference.knn import knn

SparseRow = tuple[np.ndarray, np.ndarray]


def k_reciprocal_encoding(features: Tensor, k1: int = 30, k2: int = 6) -> Tensor:
    """The vector V that describes each row by its k-reciprocal neighbours (Zhong et al. 2017, section 3.3-3.4).

    1. ``rank[i]``: the ``k1`` nearest rows of i in the order of :func:`knn`: i itself first, even if it has duplicates.
    2. ``R(i)``: the j of ``rank[i]`` that have i in ``rank[j]``; ``H(i)``: the same with the first
       ``round_half_even(k1 / 2) + 1`` columns of ``rank``.
    3. ``E(i)``: ``R(i)`` and every ``H(c)`` of a c in ``R(i)`` with ``|H(c) & R(i)| > 2/3 |H(c)|`` (eq. 5).
    4. ``V[i, j] = softmax over E(i) of -(2 - 2 <x_i, x_j>)``, zero outside ``E(i)`` (eq. 7).
    5. ``V[i]`` becomes the mean of ``V[rank[i, m]]`` over ``m < k2`` in float32 (local query expansion, eq. 11).

    Args:
        features: ``[N, D]`` float32, rows of unit norm within 1e-3; or float16 or bfloat16, within 1e-2, which are
            normalised again in float32.
        k1: neighbours, in ``[1, N]``.
        k2: neighbours averaged in the query expansion, in ``[1, k1]``.

    Returns:
        Sparse CSR ``[N, N]`` float32 with int64 indices, columns ascending. No row is empty: i is in ``E(i)``.

    Raises:
        TypeError: not a tensor, another dtype.
        ValueError: wrong shape, empty, ``k1`` or ``k2`` out of range, non-finite or un-normalised rows (the message
            names the first).
    """
    features, k1, k2 = arguments.encoding(features, k1, k2)
    checks.unit_rows("features", features)
    return _csr(_encoding(features, k1, k2), features.device)


def jaccard_distance(features: Tensor, k1: int = 30, k2: int = 6, *, max_distance: float | None = None) -> Tensor:
    """Jaccard distance between the rows of V of :func:`k_reciprocal_encoding` (Zhong et al. 2017, eq. 10).

    ``s(i, j) = sum over c of min(V[i, c], V[j, c])``, added in float32 in ascending c, and
    ``J(i, j) = max(0, 1 - s / (2 - s))``. Rows of V sum to 1, so ``2 - s`` is the sum of maxima.

    Args:
        features, k1, k2: as in :func:`k_reciprocal_encoding`.
        max_distance: None for the dense matrix, or a number in ``[0, 1)``: pairs with ``J <= float32(max_distance)``.

    Returns:
        Dense ``[N, N]`` float32; or sparse CSR ``[N, N]`` float32 with int64 indices, columns ascending, with every
        pair within ``max_distance`` and always the diagonal.

    Raises:
        TypeError, ValueError: as in :func:`k_reciprocal_encoding`, and ``max_distance`` outside ``[0, 1)``.
    """
    features, k1, k2, max_distance = arguments.jaccard_distance(features, k1, k2, max_distance)
    checks.unit_rows("features", features)
    encoding = _encoding(features, k1, k2)
    index = inverted_index(encoding, len(encoding))
    distances = (distance_from_overlap(overlaps(row, index)) for row in encoding)
    if max_distance is None:
        return torch.from_numpy(np.stack(list(distances))).to(features.device)

    # Pairs that share no column have the distance 1 and are never listed, also if float32 rounds the limit up to 1.
    limit = min(np.float32(max_distance), np.nextafter(np.float32(1), np.float32(0)))
    within = []
    for i, row in enumerate(distances):
        keep = row <= limit
        keep[i] = True
        columns = np.flatnonzero(keep)
        within.append((columns, row[columns]))
    return _csr(within, features.device)


def _encoding(features: Tensor, k1: int, k2: int) -> list[SparseRow]:
    rank = knn(features, k1)[0].cpu().numpy()
    points = features.double().cpu().numpy()

    def distances(i: int, columns: np.ndarray) -> np.ndarray:
        return 2 - 2 * (points[columns] @ points[i])

    return encode(rank, half_columns(k1), distances, k2)


# --- also used by the re-ranking of ccfast.reference.retrieval ---


def half_columns(k1: int) -> int:
    """Columns of the half list: ``round_half_even(k1 / 2) + 1``; Python's ``round`` rounds half to even."""
    return round(k1 / 2) + 1


def encode(rank: np.ndarray, half: int, distances: Callable[[int, np.ndarray], np.ndarray], k2: int) -> list[SparseRow]:
    """Rows of V from neighbour lists; ``distances(i, columns)`` returns the float64 distances for the weights."""
    reciprocal = reciprocal_sets(rank)
    expanded = expand(reciprocal, reciprocal_sets(rank[:, :half]))
    rows = [(columns, softmax(-distances(i, columns))) for i, columns in enumerate(expanded)]
    return rows if k2 == 1 else query_expansion(rows, rank, k2)


def reciprocal_sets(rank: np.ndarray) -> list[np.ndarray]:
    """For each i the j in ``rank[i]`` that have i in ``rank[j]``."""
    return [row[(rank[row] == i).any(axis=1)] for i, row in enumerate(rank)]


def expand(reciprocal: Sequence[np.ndarray], half: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Add ``H(c)`` for every c in ``R(i)`` if more than two thirds of it are in ``R(i)``; sorted."""
    expanded = []
    member = np.zeros(len(reciprocal), bool)
    for own in reciprocal:
        member[own] = True
        added = [half[c] for c in own if 3 * np.count_nonzero(member[half[c]]) > 2 * len(half[c])]
        member[own] = False
        expanded.append(np.unique(np.concatenate([own, *added])))
    return expanded


def softmax(scores: np.ndarray) -> np.ndarray:
    """Softmax of float64 scores, rounded to float32; empty stays empty."""
    if len(scores) == 0:
        return scores.astype(np.float32)
    weights = np.exp(scores - scores.max())
    return (weights / weights.sum()).astype(np.float32)


def query_expansion(rows: Sequence[SparseRow], rank: np.ndarray, k2: int) -> list[SparseRow]:
    """Mean of the rows of the ``k2`` nearest neighbours: float32 sum, nearest first, divided by ``k2``."""
    expanded = []
    total = np.zeros(len(rows), np.float32)
    for nearest in rank[:, :k2]:
        for m in nearest:
            columns, values = rows[m]
            total[columns] += values
        columns = np.unique(np.concatenate([rows[m][0] for m in nearest]))
        expanded.append((columns, total[columns] / np.float32(k2)))
        total[columns] = 0
    return expanded


def inverted_index(rows: Sequence[SparseRow], num_columns: int) -> list[SparseRow]:
    """For each column the rows that have it, ascending, with their values."""
    counts = [len(columns) for columns, _ in rows]
    columns = np.concatenate([columns for columns, _ in rows])
    values = np.concatenate([values for _, values in rows])
    row_of = np.repeat(np.arange(len(rows)), counts)
    order = np.argsort(columns, kind="stable")
    ends = np.cumsum(np.bincount(columns, minlength=num_columns))[:-1]
    return list(zip(np.split(row_of[order], ends), np.split(values[order], ends), strict=True))


def overlaps(row: SparseRow, index: Sequence[SparseRow]) -> np.ndarray:
    """``s(i, j)`` of one row with every row: float32 additions in ascending column order."""
    total = np.zeros(len(index), np.float32)
    for column, value in zip(*row, strict=True):
        sharing, values = index[column]
        total[sharing] += np.minimum(value, values)
    return total


def distance_from_overlap(overlap: np.ndarray) -> np.ndarray:
    """Jaccard distance in float32, from the sum of minima of rows that sum to 1."""
    return np.maximum(0, 1 - overlap / (2 - overlap))


def _csr(rows: Sequence[SparseRow], device: torch.device) -> Tensor:
    crow = np.cumsum([0] + [len(columns) for columns, _ in rows])
    columns = np.concatenate([columns for columns, _ in rows])
    values = np.concatenate([values for _, values in rows])
    return torch.sparse_csr_tensor(
        torch.from_numpy(crow),
        torch.from_numpy(columns),
        torch.from_numpy(values),
        (len(rows), len(rows)),
        device=device,
        check_invariants=False,
    )
