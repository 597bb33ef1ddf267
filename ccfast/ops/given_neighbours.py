"""Checks of neighbours from another search."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ccfast import _checks as checks

NAME = "neighbours"

#: Number of rows whose distances are compared with those of the features, and the relative error that most of them may
#: have: compressed vectors have a few percent, another kind of distance half or more.
_ROWS, _TOLERANCE = 256, 0.25


def given_neighbours(neighbours: Any, features: Tensor, k1: int) -> tuple[Tensor, Tensor]:
    """``neighbours`` (indices, distances) in the format of :func:`ccfast.knn`: int64 and float32, ``[N, k1]``.

    Raises:
        TypeError: not a pair of matrices of the right dtypes.
        ValueError: wrong shapes or devices; an index out of range or twice in a row; a row that is not its own first
            neighbour; distances that are not finite, negative, not ascending, or not squared Euclidean.
    """
    if not isinstance(neighbours, tuple | list) or len(neighbours) != 2:
        got = f"{len(neighbours)} items" if isinstance(neighbours, tuple | list) else type(neighbours).__name__
        raise TypeError(f"{NAME}: expected a pair (indices, distances), as ccfast.knn returns it, got {got}")
    indices = checks.tensor(f"{NAME} (indices)", neighbours[0], 2, checks.INTEGER)
    distances = checks.tensor(f"{NAME} (distances)", neighbours[1], 2, checks.ANY_FLOAT).detach()
    checks.same_device(**{"features": features, f"{NAME} (indices)": indices, f"{NAME} (distances)": distances})
    _check_shapes(indices, distances, len(features), k1)
    indices = indices[:, :k1].to(torch.int64).contiguous()
    distances = distances[:, :k1].float().contiguous()
    _check_indices(indices)
    _check_distances(distances)
    _check_kind(features, indices, distances)
    return indices, distances


def _check_shapes(indices: Tensor, distances: Tensor, count: int, k1: int) -> None:
    for part, value in (("indices", indices), ("distances", distances)):
        if value.shape[0] != count or value.shape[1] < k1:
            raise ValueError(
                f"{NAME} ({part}): expected shape ({count}, {k1}), one row per row of features, at least k1 columns, "
                f"got {tuple(value.shape)}"
            )
    checks.same_shape(**{f"{NAME} (indices)": indices, f"{NAME} (distances)": distances})


def _refuse(part: str, bad: Tensor, expected: str, value: Tensor) -> None:
    """Raise an error with the first row of ``bad`` [N, k1], if any, and its value."""
    rows = bad.any(dim=1)
    if rows.any():
        row = int(rows.nonzero()[0, 0])
        column = int(bad[row].nonzero()[0, 0])
        raise ValueError(f"{NAME} ({part}): expected {expected}, got {value[row, column].item():g} in row {row}")


def _check_indices(indices: Tensor) -> None:
    count = len(indices)
    hint = "; ccfast.refine_neighbours makes neighbours from the output of an index"
    _refuse("indices", (indices < 0) | (indices >= count), f"indices in [0, {count}){hint}", indices)
    own = torch.arange(count, device=indices.device)[:, None]
    _refuse("indices", indices[:, :1] != own, f"every row itself as its first neighbour{hint}", indices[:, :1])
    ordered = indices.sort(dim=1)[0]
    twice = ordered[:, 1:] == ordered[:, :-1]
    _refuse("indices", twice, "different neighbours, each of them once", ordered[:, 1:])


def _check_distances(distances: Tensor) -> None:
    _refuse("distances", ~distances.isfinite(), "finite values", distances)
    _refuse("distances", distances < 0, "squared distances of at least 0", distances)
    falling = distances[:, 1:] < distances[:, :-1]
    _refuse("distances", falling, "ascending distances, nearest first; a smaller one follows", distances[:, 1:])


def _check_kind(features: Tensor, indices: Tensor, distances: Tensor) -> None:
    """Refuse roots, halves (1 - cosine) and other distances, which look plausible but would give wrong weights."""
    rows = torch.linspace(0, len(features) - 1, min(_ROWS, len(features)), dtype=torch.float64).long()
    rows = rows.to(features.device)
    measured = torch.ops.ccfast.pair_distances(features[rows], features, indices[rows])
    given = distances[rows].double()
    checked = measured > 1e-6  # smaller distances may consist of rounding only
    if not checked.any():
        return
    off = ((given - measured).abs() / measured.clamp(min=1e-6))[checked]
    if float(off.median()) > _TOLERANCE:
        worst = int(((given - measured).abs() * checked).flatten().argmax())
        row, column = int(rows[worst // given.shape[1]]), worst % given.shape[1]
        raise ValueError(
            f"{NAME} (distances): expected squared Euclidean distances between rows of features, got "
            f"{distances[row, column].item():g} in row {row} instead of {measured.flatten()[worst].item():g}; "
            "ccfast.refine_neighbours computes them"
        )
