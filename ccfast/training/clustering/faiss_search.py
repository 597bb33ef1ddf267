"""Neighbours from a faiss index: most of the nearest rows, in a fraction of the time of an exact search."""

from __future__ import annotations

import logging
import math
from typing import Any, Protocol

import torch
from torch import Tensor

from ccfast._errors import InputError
from ccfast._optional import import_optional
from ccfast.ops.candidates import lacking, refined
from ccfast.ops.own_first import own_first
from ccfast.training.config import AUTO, ClusterOptions
from ccfast.training.group import ALONE, Group

log = logging.getLogger(__name__)

#: Number of candidates beyond k1, because float32 and compressed distances can confuse the order of the last ones.
EXTRA = 16

#: Rows per list of an inverted file for k-means: faiss warns below the first number; more than the second are not used,
#: because their copy and the training would cost more than the search.
FEW_PER_LIST, MANY_PER_LIST = 39, 64

_ADDED_AT_ONCE = 1 << 16


class Rows(Protocol):
    """Rows [count, dim] of float32 on the CPU, from memory or from a file."""

    count: int
    dim: int

    def read(self, begin: int, end: int) -> Tensor:
        """Rows begin .. end - 1."""

    def take(self, rows: Tensor) -> Tensor:
        """The given rows, which are in ascending order."""

    def measure(self, queries: Tensor, indices: Tensor) -> Tensor:
        """Exact distances float64 [Q, K] of ``queries`` [Q, D] to the rows of ``indices`` [Q, K]."""

    def search(self, queries: Tensor, own: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The ``k`` nearest of all rows for ``queries``; ``own`` are their row numbers."""


class RowsAtHand:
    """The rows of a matrix."""

    def __init__(self, features: Tensor) -> None:
        self.features = features.contiguous()
        self.count, self.dim = features.shape

    def read(self, begin: int, end: int) -> Tensor:
        """See :class:`Rows`."""
        return self.features[begin:end]

    def take(self, rows: Tensor) -> Tensor:
        """See :class:`Rows`."""
        return self.features[rows]

    def measure(self, queries: Tensor, indices: Tensor) -> Tensor:
        """See :class:`Rows`."""
        return torch.ops.ccfast.pair_distances(queries, self.features, indices)

    def search(self, queries: Tensor, own: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """See :class:`Rows`."""
        indices, distances = torch.ops.ccfast.knn(self.features, queries, k, "fp32", None)
        return own_first(indices, own), distances


class FaissSearch:
    """A faiss index over all ``rows``, and its search parameters."""

    def __init__(self, rows: Rows, options: ClusterOptions, most_bytes: int | None = None) -> None:
        self.faiss = import_optional("faiss", "--neighbours faiss", "faiss-cpu")
        self.faiss.omp_set_num_threads(torch.get_num_threads())
        self.rows, self.k = rows, options.k1
        self.wanted = min(options.k1 + EXTRA, rows.count)
        text = default_index(rows.count) if options.faiss_index == AUTO else options.faiss_index
        self.index = self._made(text)
        if most_bytes is not None and self.bytes() > most_bytes:
            raise InputError(
                f"--memory-limit: the index {text} takes about {self.bytes() >> 20} MB, but only "
                f"{most_bytes >> 20} MB are left for it; raise the limit, or use compressed rows (--faiss-index "
                "IVF4096,SQ8 or IVF4096,PQ32)"
            )
        self._fill(text)
        self._set(options.faiss_search)
        self.left_out = 0

    def _made(self, text: str) -> Any:
        try:
            return self.faiss.index_factory(self.rows.dim, text, self.faiss.METRIC_L2)
        except RuntimeError as error:
            raise InputError(f"--faiss-index: faiss cannot make the index {text!r}: {_reason(error)}") from error

    def bytes(self) -> int:
        """An estimate of the index's memory with all rows: codes, row numbers and HNSW's links."""
        try:
            code = self.index.sa_code_size()
        except RuntimeError:  # an index without codes
            code = 4 * self.rows.dim
        graph = getattr(self.faiss.downcast_index(self.index), "hnsw", None)
        links = 0 if graph is None else 4 * graph.nb_neighbors(0)
        return self.rows.count * (code + 8 + links)

    def _fill(self, text: str) -> None:
        """Train the index if it needs training, and add all rows, block by block."""
        count = self.rows.count
        try:
            if not self.index.is_trained:
                most = MANY_PER_LIST * max(getattr(self._lists(), "nlist", 256), 256)
                chosen = torch.linspace(0, count - 1, min(count, most), dtype=torch.float64).long()
                self.index.train(self.rows.take(chosen).numpy())
            for first in range(0, count, _ADDED_AT_ONCE):
                self.index.add(self.rows.read(first, min(first + _ADDED_AT_ONCE, count)).numpy())
        except RuntimeError as error:
            raise InputError(f"--faiss-index: faiss cannot fill {text!r} with these rows: {_reason(error)}") from error

    def _lists(self) -> Any:
        """The inverted file in the index, or None."""
        try:
            return self.faiss.extract_index_ivf(self.index)
        except RuntimeError:
            return None

    def _set(self, parameters: str) -> None:
        if parameters == AUTO:
            lists = self._lists()
            if lists is not None:
                parameters = f"nprobe={max(1, min(lists.nlist, max(8, lists.nlist // 16)))}"
            elif hasattr(self.faiss.downcast_index(self.index), "hnsw"):
                parameters = f"efSearch={2 * self.wanted}"
            else:
                return
        try:
            self.faiss.ParameterSpace().set_index_parameters(self.index, parameters)
        except RuntimeError as error:
            raise InputError(
                f"--faiss-search: faiss cannot set {parameters!r} for this index: {_reason(error)}"
            ) from error

    def nearest(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Indices and distances [R, k1] of the rows ``first`` .. ``last - 1``, in the format of :func:`ccfast.knn`.

        The distances to candidates are computed again in float64. If the index finds too few neighbours for a row, the
        row is searched exactly.
        """
        rows = self.rows.read(first, last)
        if len(rows) == 0:
            return torch.empty(0, self.k, dtype=torch.int64), torch.empty(0, self.k)
        candidates = torch.from_numpy(self.index.search(rows.numpy(), self.wanted)[1])
        short = lacking(candidates, first, self.k)
        candidates[short] = torch.arange(self.wanted)  # enough of them, for now
        indices, distances = refined(rows, candidates, first, self.k, self.rows.measure)
        if short.any():
            lone = short.nonzero()[:, 0]
            self.left_out += len(lone)
            indices[lone], distances[lone] = self.rows.search(rows[lone], lone + first, self.k)
        return indices, distances

    def say_what_was_left_out(self) -> None:
        """Log how many rows were searched exactly."""
        if self.left_out:
            log.info(
                "faiss found too few neighbours for %s rows, which were searched exactly (use a larger --faiss-search)",
                f"{self.left_out:,}",
            )


def default_index(count: int) -> str:
    """An inverted file with 4 sqrt(N) lists, or fewer if N rows are too few to train them."""
    lists = min(4 * math.isqrt(count), count // FEW_PER_LIST)
    return f"IVF{lists},Flat" if lists > 1 else "Flat"


def by_faiss(features: Tensor, options: ClusterOptions, group: Group = ALONE) -> tuple[Tensor, Tensor]:
    """Indices and distances [N, k1] of all rows of ``features``; every process of ``group`` searches for its slice."""
    search = FaissSearch(RowsAtHand(features.cpu()), options)
    own = group.slice_of(len(features))
    found = search.nearest(own.start, own.stop)
    search.say_what_was_left_out()
    indices, distances = (group.gather(part.to(features.device), len(features)) for part in found)
    return indices, distances


def _reason(error: RuntimeError) -> str:
    """The last part of faiss's "Error in FUNCTION at FILE: Error: 'CONDITION' failed: REASON"."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
    return text.rpartition("failed: ")[2] or text
