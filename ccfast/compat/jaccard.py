"""The authors' Jaccard distance, for all input for which their code returns a matrix."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ccfast import _checks as checks
from ccfast.compat._inputs import length, rows, warn_once
from ccfast.compat.forms import takes_all_forms
from ccfast.compat.search import warn_of_lost_rows
from ccfast.ops.jaccard import CsrTensors, encoding_of_rows, half_columns, jaccard_distance
from ccfast.ops.knn import knn


@takes_all_forms
def compute_jaccard_distance(
    target_features: Any,
    k1: int = 20,
    k2: int = 6,
    print_flag: bool = True,
    search_option: int = 0,
    use_float16: bool = False,
) -> np.ndarray:
    """Dense Jaccard distance of k-reciprocal encodings as a NumPy array.

    With rows of unit norm, ``k1 <= N`` and ``k2 <= k1``, the result is that of :func:`ccfast.jaccard_distance`. For all
    other input for which the authors' code returns a matrix, this function returns the same matrix, and warns once per
    process and kind:

    - Rows of another norm: neighbours are those with the smallest ``|x - y|^2``, and weights are the softmax of
      ``-(2 - 2 <x, y>)``. The two order the rows equally only if all norms are equal.
    - Zero rows: the same. All rows of one norm have the same distance from a zero row, so rounding decides which of
      them are its neighbours. Only in this case can the matrix differ from the authors' by more than rounding.
    - Rows with NaN or infinity: they are in no neighbour list and have no neighbours. Empty positions of a list are -1,
      which the authors' code reads as the last row. So with ``k2 > 1`` such a row has the encoding of the last row, and
      with ``k2 = 1`` its distance from all rows, including itself, is 1.
    - ``k1 > N``: lists end in -1, so the last row counts twice in every softmax; the diagonal is not 0.
    - ``k2 > k1``: the same as ``k2 = k1``.

    Args:
        target_features: ``[N, D]`` of any floating-point dtype, read as float32.
        k1: size of the neighbour lists, counting the row itself, at least 1.
        k2: rows averaged by the query expansion, from 1 to a million or N; 1 skips it.
        print_flag: print that the distance is computed, and the seconds it took.
        search_option: the faiss index that the authors' code used: 0 to 2, or another number. All find the same
            neighbours; ccfast always uses an exact search, on the device of ``target_features``.
        use_float16: return float16. The result is still computed in float32; the authors compute in float16, and their
            result is within 3.9e-3 of this one.

    Returns:
        ``[N, N]`` float32, or float16.

    Raises:
        TypeError: ``target_features`` is not floating-point, a number is not an integer.
        ValueError: an empty input, ``k1`` or ``k2`` out of range, non-finite values in every row, a row whose squared
            norm is too large for float32.
    """
    features = rows("target_features", target_features)
    k1 = checks.integer("k1", k1, low=1)
    k2 = length("k2", k2, len(features))
    checks.integer("search_option", search_option, low=-(2**31))
    start = time.time()
    if print_flag:
        print("Computing jaccard distance...")
    distance = _distance(features, k1, k2)
    if print_flag:
        print(f"Jaccard distance computing time cost: {time.time() - start}")
    return distance.to(torch.float16 if use_float16 else torch.float32).cpu().numpy()


def _distance(features: Tensor, k1: int, k2: int) -> Tensor:
    if _as_ccfast_takes_them(features, k1, k2):
        return jaccard_distance(features, k1, k2)
    total = len(features)
    known = torch.isfinite(features).all(dim=1).nonzero()[:, 0]
    last_is_repeated = k1 > len(known) and int(known[-1]) == total - 1
    rank, distances = knn(features[known], min(k1, len(known)))
    crow, col, values = _encoding(features[known], rank, distances, k1, last_is_repeated)
    parts = _among_all(crow, known[col], values, known, total)
    if k2 > 1:
        columns = min(k1, k2)
        lists = torch.full((total, columns), total - 1, device=features.device)  # the row that -1 means
        lists[known, : rank.shape[1]] = known[rank[:, :columns]]
        parts = torch.ops.ccfast.expand_queries(*parts, lists, columns)
    return torch.ops.ccfast.dense_jaccard(*parts, 0, total, 0, total)


def _as_ccfast_takes_them(features: Tensor, k1: int, k2: int) -> bool:
    """Whether the input is ordinary; warns once per kind if it is not."""
    warn_of_lost_rows("target_features", features)
    finite = bool(torch.isfinite(features).all())
    unit = _warn_of_norms(features)
    if k1 > len(features):
        warn_once(
            "k1",
            f"k1: {k1} is more than the {len(features)} rows of target_features; the last row fills every list and "
            "counts twice, as in the authors' code.",
        )
    if k2 > k1:
        warn_once("k2", f"k2: {k2} is more than k1 ({k1}) and has the effect of {k1}, as in the authors' code.")
    return finite and unit and k1 <= len(features) and k2 <= k1


def _warn_of_norms(features: Tensor) -> bool:
    """Whether the finite rows have unit norm."""
    norms = torch.linalg.vector_norm(features.double(), dim=1)
    norms[~torch.isfinite(norms)] = 1  # already reported
    longest = int(norms.argmax())
    if norms[longest] ** 2 > torch.finfo(torch.float32).max:
        raise ValueError(
            "target_features: expected rows whose squared norm fits into float32, "
            f"got norm {norms[longest]:g} in row {longest}"
        )
    other = (norms - 1).abs() > checks.UNIT_NORM_TOLERANCE
    if not other.any():
        return True
    zero = norms == 0
    if (other & ~zero).any():
        row = int((other & ~zero).nonzero()[0, 0])
        warn_once(
            "norms",
            f"target_features: {int(other.sum())} of {len(features)} rows do not have unit norm (row {row} has "
            f"{norms[row]:g}); neighbours use |x - y|^2 and weights use 2 - 2 <x, y>, as in the authors' code.",
        )
    if zero.any():
        warn_once(
            "zero rows",
            f"target_features: {int(zero.sum())} of {len(features)} rows are zero (the first is row "
            f"{int(zero.nonzero()[0, 0])}); all rows of one norm have the same distance from them, and rounding "
            "decides which of these are their neighbours, in ccfast and in the authors' code.",
        )
    return False


def _encoding(features: Tensor, rank: Tensor, distances: Tensor, k1: int, last_is_repeated: bool) -> CsrTensors:
    """Rows of V before the query expansion, from finite ``features`` and their neighbours.

    If the lists are longer than the number of rows, all rows are in every set. With ``last_is_repeated`` the last row
    is in it twice: both have its weight, and share one position.
    """
    half = min(half_columns(min(k1, 2 * len(rank))), rank.shape[1])
    crow, col, values = encoding_of_rows(features, rank, distances, half=half)
    if last_is_repeated:
        weights = values.view(len(features), len(features))
        values = (weights / (1 + weights[:, -1:])).flatten()
    return crow, col, values


def _among_all(crow: Tensor, col: Tensor, values: Tensor, known: Tensor, total: int) -> CsrTensors:
    """The same rows among ``total``, at the positions ``known``; the others are empty."""
    counts = torch.zeros(total, dtype=crow.dtype, device=crow.device)
    counts[known] = crow.diff()
    start = torch.zeros(total + 1, dtype=crow.dtype, device=crow.device)
    start[1:] = counts.cumsum(0)
    return start, col, values
