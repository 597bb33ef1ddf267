"""Exact neighbours when the rows arrive block by block, in any order."""

from __future__ import annotations

import torch
from torch import Tensor

from ccfast.ops.own_first import own_first

ops = torch.ops.ccfast


class NearestSoFar:
    """The ``k`` nearest of all rows offered so far, for each of ``queries`` [Q, D] float32, which are finite.

    When every row has been offered once, the lists equal those of one search over all rows, bit for bit: they are
    sorted by the float64 distance, and for ties by index.
    """

    def __init__(self, queries: Tensor, k: int) -> None:
        self.queries, self.k, self._last = queries, k, -1
        self._indices = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
        self._distances = torch.empty(len(queries), 0, dtype=torch.float64, device=queries.device)

    def offer(self, block: Tensor, first: int) -> None:
        """Offer the rows ``first``, ``first + 1``, ... [B, D], which have not been offered before."""
        if len(block) == 0 or len(self.queries) == 0:
            return
        found, _ = ops.knn(block, self.queries, min(self.k, len(block)), "fp32", None)
        distances = torch.cat([self._distances, ops.pair_distances(self.queries, block, found)], dim=1)
        indices = torch.cat([self._indices, found.add_(first)], dim=1)
        if self._last >= first:  # else new rows have higher indices, and ties are already in order
            indices, order = indices.sort(dim=1)
            distances = distances.gather(1, order)
        distances, order = distances.sort(dim=1, stable=True)
        self._last = max(self._last, first)
        self._distances = distances[:, : self.k].contiguous()
        self._indices = indices.gather(1, order)[:, : self.k].contiguous()

    def lists(self, own: Tensor) -> tuple[Tensor, Tensor]:
        """Indices [Q, k] int64 and squared distances [Q, k] float32, equal to those of ``ccfast.knn`` for the queries.

        ``own`` [Q]: the row number of each query, which comes first in its own list.
        """
        if len(own) == 0:
            return self._indices.new_empty(0, self.k), self._distances.new_empty(0, self.k, dtype=torch.float32)
        return own_first(self._indices, own), self._distances.float()
