"""The nearest rows among candidates from another search."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ccfast import _checks as checks
from ccfast.ops.own_first import own_first

#: Number of pairs whose distances are in memory at the same time.
_PAIRS = 1 << 22

NONE = -1  # an index fills its lists with -1 if it has found fewer


def refine_neighbours(features: Any, candidates: Any, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest rows of ``features`` for every row, among the ``candidates`` from an index.

    The distances to all candidates are computed as in :func:`ccfast.knn`: in float64, for ties the lower index first,
    the row itself first. If the candidates include the k nearest rows, the result equals that of :func:`ccfast.knn`,
    bit for bit. The index may use any distance. :func:`ccfast.jaccard_distance` and others take the result as
    ``neighbours=``.

    Args:
        features: ``[N, D]`` float32, float16 or bfloat16; any finite values.
        candidates: ``[N, K]`` integers: row i has the candidates of row i, in any order. -1 means no candidate,
            duplicates count once, and the row itself may be missing.
        k: neighbours per row, ``1 <= k <= N``.

    Returns:
        ``indices [N, k]`` int64 and ``distances [N, k]`` float32, squared Euclidean, nearest first.

    Raises:
        TypeError: a tensor of another dtype or layout.
        ValueError: an empty input, ``k`` out of range, a different number of rows, an index out of range, a row with
            fewer than k different candidates, with the row itself (the message names the first such row), non-finite
            values, mixed devices.

    Examples:
        >>> import torch, ccfast
        >>> features = torch.tensor([[0.0], [1.0], [3.0]])
        >>> candidates = torch.tensor([[1, 2], [0, 2], [1, -1]])  # from faiss: index.search(features, 2)[1]
        >>> indices, distances = ccfast.refine_neighbours(features, candidates, k=2)
        >>> indices.tolist(), distances.tolist()
        ([[0, 1], [1, 0], [2, 1]], [[0.0, 1.0], [0.0, 1.0], [0.0, 4.0]])
    """
    features = checks.matrix("features", features, checks.HALF_OR_SINGLE).detach().float()
    checks.finite_rows("features", features)
    candidates = candidate_rows(candidates, features)
    k = checks.integer("k", k, low=1, high=len(features), high_name="the number of rows of features")
    short = lacking(candidates, 0, k)
    if short.any():
        row = int(short.nonzero()[0, 0])
        raise ValueError(
            f"candidates: expected at least k = {k} different rows for each row, with the row itself, got fewer in row "
            f"{row}; use more probes or ask the index for more neighbours"
        )
    return refined(
        features, candidates, 0, k, lambda rows, found: torch.ops.ccfast.pair_distances(rows, features, found)
    )


def candidate_rows(candidates: Any, features: Tensor) -> Tensor:
    """``candidates`` checked, as int64 on the device of ``features``."""
    candidates = checks.tensor("candidates", candidates, 2, checks.INTEGER)
    checks.same_device(features=features, candidates=candidates)
    count = len(features)
    if len(candidates) != count:
        raise ValueError(
            f"candidates: expected [{count}, K], one row per row of features, got {tuple(candidates.shape)}"
        )
    candidates = candidates.to(torch.int64)
    bad = ((candidates < NONE) | (candidates >= count)).any(dim=1)
    if bad.any():
        row = int(bad.nonzero()[0, 0])
        raise ValueError(f"candidates: expected indices in [0, {count}), or -1 for none, got another in row {row}")
    return candidates


def lacking(candidates: Tensor, first: int, k: int) -> Tensor:
    """The rows among ``first``, ``first + 1``, ... with fewer than k different candidates, counting themselves."""
    return _sorted_with_own(candidates, first)[1].sum(dim=1) < k


def _sorted_with_own(candidates: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """The candidates [R, K] and the rows themselves, ascending, and which of them are valid: not -1, each once."""
    own = torch.arange(first, first + len(candidates), device=candidates.device)[:, None]
    indices = torch.cat([own, candidates], dim=1).sort(dim=1)[0]
    before = F.pad(indices[:, :-1], (1, 0), value=NONE)
    return indices, indices != before


#: Distances float64 [R, K] of rows [R, D] to the features of the indices [R, K].
Measure = Callable[[Tensor, Tensor], Tensor]


def refined(rows: Tensor, candidates: Tensor, first: int, k: int, measure: Measure) -> tuple[Tensor, Tensor]:
    """:func:`refine_neighbours` for the ``rows`` with the numbers ``first``, ``first + 1``, ...; all have enough."""
    step = max(1, _PAIRS // (candidates.shape[1] + 1))
    parts = [
        _refined(rows[begin : begin + step], candidates[begin : begin + step], first + begin, k, measure)
        for begin in range(0, len(rows), step)
    ]
    indices, distances = zip(*parts, strict=True)
    return torch.cat(indices), torch.cat(distances)


def _refined(rows: Tensor, candidates: Tensor, first: int, k: int, measure: Measure) -> tuple[Tensor, Tensor]:
    indices, counted = _sorted_with_own(candidates, first)
    distances = measure(rows, indices.clamp(min=0))
    distances = distances.where(counted, torch.inf)
    distances, order = distances.sort(dim=1, stable=True)  # indices are ascending, so ties put the lower one first
    own = torch.arange(first, first + len(rows), device=rows.device)
    return own_first(indices.gather(1, order), own)[:, :k].contiguous(), distances[:, :k].float()


@torch.library.register_fake("ccfast::pair_distances")
def _(queries: Tensor, features: Tensor, indices: Tensor) -> Tensor:
    return queries.new_empty(indices.shape, dtype=torch.float64)
