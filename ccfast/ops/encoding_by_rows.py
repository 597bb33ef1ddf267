"""V of some rows without the features of all rows: they are fetched only for the few pairs that need them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ccfast.ops.jaccard import CsrTensors, half_columns

ops = torch.ops.ccfast


def missing_pairs(rank: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
    """Pairs (i, j) of a row i in ``rows`` and a member j of its set that is not one of its neighbours, so that no list
    has their distance. ``rank`` [N, k1] are the neighbours of all rows. Returns i [P], ascending, and j [P].
    """
    # The sets depend on the lists only; the weights of this call are not used.
    nothing = torch.zeros(len(rank), 1, device=rank.device)
    lists = torch.zeros(rows.stop - rows.start, rank.shape[1], device=rank.device)
    crow, col, _ = ops.encode_neighbours(
        nothing, rank, lists, half_columns(rank.shape[1]), None, None, rows.start, rows.stop
    )
    i = torch.arange(rows.start, rows.stop, device=rank.device).repeat_interleave(crow.diff())
    count = len(rank)
    listed = (rank[rows] + count * torch.arange(rows.start, rows.stop, device=rank.device)[:, None]).flatten()
    missing = ~torch.isin(i * count + col, listed, assume_unique=True)
    return i[missing], col[missing]


def encode_rows(
    rank: Tensor,
    distances: Tensor,
    shift: Tensor,
    rows: slice,
    own: Tensor,
    others: Tensor,
    fetch: Callable[[Tensor], Tensor],
) -> CsrTensors:
    """V of ``rows``, equal to that of ``encode_neighbours`` with all features.

    Args:
        rank, shift: the neighbours [N, k1] and the column shift [N] of all rows.
        distances: of the ``rows`` only.
        own: features of the ``rows``.
        others: j of :func:`missing_pairs` of the ``rows``.
        fetch: returns the features of given rows, which are in ascending order.
    """
    others = others.unique()
    outside = others[(others < rows.start) | (others >= rows.stop)]
    features = torch.cat([own, fetch(outside)])
    if len(own) == 0:
        return rank.new_zeros(1), rank.new_empty(0), shift.new_empty(0)
    places = torch.zeros(len(rank), dtype=torch.int64, device=rank.device)
    places[rows] = torch.arange(len(own), device=rank.device)
    places[outside] = torch.arange(len(own), len(features), device=rank.device)
    half = half_columns(rank.shape[1])
    return ops.encode_neighbours(features, rank, distances, half, None, shift, rows.start, rows.stop, places)
