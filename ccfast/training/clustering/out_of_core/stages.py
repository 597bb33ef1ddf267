"""The stages between features and labels, each by blocks of rows; finished blocks are on the disk."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ccfast import _checks as checks
from ccfast._progress import counter
from ccfast.ops.dbscan import dbscan
from ccfast.ops.encoding_by_rows import encode_rows, missing_pairs
from ccfast.ops.jaccard import CsrTensors, column_shift, csr_tensor
from ccfast.training.clustering.faiss_search import FaissSearch
from ccfast.training.clustering.out_of_core.budget import Budget
from ccfast.training.clustering.out_of_core.files import CsrFile, RowFile
from ccfast.training.clustering.out_of_core.rows import FeatureRows, as_it_is, opened
from ccfast.training.clustering.out_of_core.work_folder import WorkFolder
from ccfast.training.config import ClusterOptions
from ccfast.training.device import peak_memory_mb

log = logging.getLogger(__name__)
ops = torch.ops.ccfast


#: ``blocks(done)``: the remaining blocks (begin, end) when the first ``done`` rows are finished.
Blocks = Callable[[int], list[tuple[int, int]]]


class Stages:
    """The clustering of the rows of a file by blocks, with all finished results in ``folder``."""

    def __init__(
        self, features: Path, options: ClusterOptions, normalize: bool, limit: int, folder: WorkFolder,
        device: torch.device,
    ) -> None:  # fmt: skip
        self.source, self.options, self.normalize, self.device = features, options, normalize, device
        self.folder, path = folder, folder.path
        self.count, dim = opened(features).shape
        self.budget = Budget(limit, self.count, dim, options.k1)
        given = None if normalize else as_it_is(features)
        self._copied = given is None
        self.rows = FeatureRows(given or RowFile(path / "features.rows", dim, "<f4"), self.count, self.budget)
        self.shift = RowFile(path / "shift.rows", 1, "<f4")
        self.rank = RowFile(path / "neighbours.rows", options.k1, "<i4")
        self.distances = RowFile(path / "distances.rows", options.k1, "<f4")
        self.encoding = CsrFile(path / "encoding", self.count)
        self.expanded = CsrFile(path / "expanded", self.count)
        self.near = CsrFile(path / "near", self.count, "int64")

    def labels(self) -> Tensor:
        """Labels [N] of DBSCAN, equal to those without blocks."""
        copy = [self.rows.file] if self._copied else []
        self._stage("check", self._by_rows(self.budget.plain()), self._check, [self.shift, *copy])
        self._stage("search", self._by_rows(self._search_step()), self._searching(), [self.rank, self.distances])
        self._encode()
        v = self.encoding
        if self.options.k2 > 1:
            mean = int(v.crow()[-1]) / self.count
            step = max(1, int(self.budget.entries() / (2 * self.options.k2 * mean)))
            self._stage("expand", self._by_rows(step), self._expand, [self.expanded])
            v = self.expanded
        self._measure(v)
        return self._cluster()

    # ---- one stage ----

    def _by_rows(self, step: int) -> Blocks:
        """Blocks of ``step`` rows from any row on, so that a run with another limit can continue."""
        return lambda done: [(begin, min(begin + step, self.count)) for begin in range(done, self.count, step)]

    def _stage(
        self, name: str, blocks: Blocks, work: Callable[[int, int], None], files: list[RowFile] | list[CsrFile]
    ) -> None:
        """Call ``work(begin, end)`` for all remaining ``blocks``; it appends to ``files``."""
        done = self.folder.done(name)
        if done >= self.count:
            return
        for file in files:
            file.keep(done)
        left = blocks(done)
        after = f", continuing after {done:,} rows" if done else ""
        log.info("%s: %s block(s) of up to %s rows%s", name, f"{len(left):,}", f"{left[0][1] - left[0][0]:,}", after)
        tenths, start = done * 10 // self.count, time.monotonic()
        with counter(name, self.count, done) as advance:
            for begin, end in left:
                work(begin, end)
                self.folder.mark(name, end)
                advance(end - begin)
                if end * 10 // self.count > tenths:
                    tenths = end * 10 // self.count
                    log.info(
                        "%s: %d%% after %.1f s; at most %s MB", name, 10 * tenths, time.monotonic() - start, peak()
                    )

    def _check(self, begin: int, end: int) -> None:
        """Check that rows have unit norm; copy them if the search cannot read them from the file."""
        if self._copied:
            rows = torch.from_numpy(np.array(opened(self.source)[begin:end], np.float32, order="C"))
            rows = F.normalize(rows, dim=1) if self.normalize else rows
        else:
            rows = self.rows.read(begin, end)
        checks.unit_rows("features", rows, first=begin)
        if self._copied:
            self.rows.file.append(rows)
        self.shift.append(column_shift(rows)[:, None])

    def _search_step(self) -> int:
        return self.budget.search()[0] if self.options.neighbours == "exact" else self.budget.candidates()

    def _searching(self) -> Callable[[int, int], None]:
        if self.folder.done("search") >= self.count:
            return self._search
        if self.options.neighbours == "exact":
            return self._search
        log.info("search: building the faiss index")
        index = FaissSearch(self.rows, self.options, most_bytes=self.budget.index())

        def search(begin: int, end: int) -> None:
            self._write_neighbours(*index.nearest(begin, end))
            if end == self.count:
                index.say_what_was_left_out()

        return search

    def _search(self, begin: int, end: int) -> None:
        queries = self.rows.read(begin, end).to(self.device)
        own = torch.arange(begin, end, device=self.device)
        self._write_neighbours(*self.rows.search(queries, own, self.options.k1))

    def _write_neighbours(self, indices: Tensor, distances: Tensor) -> None:
        self.rank.append(indices)
        self.distances.append(distances)

    def _encode(self) -> None:
        if self.folder.done("encode") >= self.count:
            return
        rank = torch.empty(self.count, self.options.k1, dtype=torch.int64)
        step = self.budget.plain()
        for begin in range(0, self.count, step):
            rank[begin : begin + step] = self.rank.read(begin, min(begin + step, self.count))
        shift = self.shift.read(0, self.count)[:, 0]

        def encode(begin: int, end: int) -> None:
            rows = slice(begin, end)
            others = missing_pairs(rank, rows)[1]
            own, distances = self.rows.read(begin, end), self.distances.read(begin, end)
            self.encoding.append(encode_rows(rank, distances, shift, rows, own, others, self.rows.take))

        self._stage("encode", self._by_rows(self.budget.encode()), encode, [self.encoding])

    def _expand(self, begin: int, end: int) -> None:
        rank = self.rank.read(begin, end)[:, : self.options.k2].long()
        v = self.encoding.only(rank.unique())
        self.expanded.append(ops.expand_queries(*v, rank.contiguous(), self.options.k2))

    def _measure(self, v: CsrFile) -> None:
        """Pairs within eps: blocks of rows against blocks of rows; the budget limits their entries."""
        blocks = list(v.stretches(self.budget.entries() // 2))

        def measure(begin: int, end: int) -> None:
            self.near.append(_near(v, (begin, end), blocks, self.options.eps))

        def left(done: int) -> list[tuple[int, int]]:
            return [(max(begin, done), end) for begin, end in blocks if end > done]

        self._stage("distances", left, measure, [self.near])

    def _cluster(self) -> Tensor:
        crow = self.near.crow()
        entries = int(crow[-1])
        log.info("dbscan: %s pairs within eps", f"{entries:,}")
        # Mapped, so that the kernel can reclaim the memory if there is too little.
        col = torch.from_numpy(np.memmap(self.near.col.path, np.int64, "c", shape=(entries,)))
        values = torch.from_numpy(np.memmap(self.near.values.path, np.float32, "c", shape=(entries,)))
        return dbscan(csr_tensor((crow, col, values), self.count), self.options.eps, self.options.min_samples)


def _near(v: CsrFile, rows: tuple[int, int], blocks: list[tuple[int, int]], eps: float) -> CsrTensors:
    """Pairs of ``rows`` with the rows of all ``blocks`` within ``eps``."""
    begin, end = rows
    found = [_near_block(v, rows, block, eps) for block in blocks]
    row, col, values = (torch.cat(part) for part in zip(*found, strict=True))
    row, order = row.sort(stable=True)  # blocks are ascending, so columns stay ascending in each row
    counts = torch.bincount(row, minlength=end - begin)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)]), col[order], values[order]


def _near_block(
    v: CsrFile, rows: tuple[int, int], others: tuple[int, int], eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Row (from 0), column and distance of the pairs of ``rows`` with ``others`` within ``eps``."""
    (begin, end), (first, last) = rows, others
    both = [others] if first <= begin and end <= last else sorted([rows, others])
    crow, col, values = csr_of_stretches(v, both)
    crow, col, values = ops.sparse_jaccard(crow, col, values, eps, begin, end)
    row = torch.arange(end - begin).repeat_interleave(crow.diff())
    inside = (col >= first) & (col < last)
    return row[inside], col[inside], values[inside]


def csr_of_stretches(v: CsrFile, stretches: list[tuple[int, int]]) -> CsrTensors:
    """All rows, but only those of the ``stretches``, ascending, with their entries."""
    counts = torch.zeros(v.columns, dtype=torch.int64)
    parts = []
    for begin, end in stretches:
        crow, col, values = v.rows(begin, end)
        counts[begin:end] = crow.diff()
        parts.append((col, values))
    crow = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return crow, torch.cat([col for col, _ in parts]), torch.cat([values for _, values in parts])


def peak() -> str:
    """The peak memory of this process, in MiB."""
    return f"{peak_memory_mb(torch.device('cpu')):,}"
