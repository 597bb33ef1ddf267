"""Steps 2 and 3 of an epoch by several processes: each takes a slice of the rows, and all get all labels.

Features may also be distributed over the processes (:class:`Shard`): then blocks of them travel in a ring during the
search, and no process holds all. All processes get the neighbour lists and sparse encodings, O(N * neighbours); N x N
is never stored. The labels equal those of one process, bit for bit: every row is computed from the same numbers in the
same order.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from ccfast import _arguments as arguments
from ccfast import _checks as checks
from ccfast.ops.encoding_by_rows import encode_rows, missing_pairs
from ccfast.ops.infomap import infomap_of_neighbours
from ccfast.ops.jaccard import CsrTensors, column_shift, csr_tensor, encoding_of_rows
from ccfast.ops.memory import cluster_centroids
from ccfast.ops.nearest_so_far import NearestSoFar
from ccfast.training.group import Group
from ccfast.training.shard import Shard, exchange_rows

ops = torch.ops.ccfast

#: Rows of features that a process fetches at a time, if it holds fewer itself.
_FETCHED = 4096

Neighbours = tuple[Tensor, Tensor]


def jaccard_distance(
    features: Tensor | Shard,
    k1: int,
    k2: int,
    *,
    max_distance: float,
    group: Group,
    neighbours: Neighbours | None = None,
) -> Tensor:
    """``ccfast.jaccard_distance(features, k1, k2, max_distance=max_distance)``, the whole of it in every process."""
    count = len(features)
    arguments.neighbours(features, k1, k2)
    rows = group.slice_of(count)
    if neighbours is None:
        rank, distances = nearest(features, k1, group)
        rank = group.gather(rank, count)
    else:
        rank, distances = neighbours[0], neighbours[1][rows]
    v = group.gather_csr(_encoding(features, rank, distances, group), count)
    if k2 > 1:
        v = group.gather_csr(ops.expand_queries(*v, rank[rows], k2), count)
    near = ops.sparse_jaccard(*v, max_distance, rows.start, rows.stop)
    return csr_tensor(group.gather_csr(near, count), count)


def infomap(
    features: Tensor | Shard,
    k1: int,
    min_similarity: float,
    min_cluster_size: int,
    *,
    group: Group,
    neighbours: Neighbours | None = None,
) -> Tensor:
    """``ccfast.infomap``; the search is shared, the partition is found by the main process."""
    count = len(features)
    checks.integer("k1", k1, low=1, high=count, high_name=arguments.ROWS_OF_FEATURES)
    if neighbours is None:
        found = nearest(features, k1, group)
        neighbours = group.gather(found[0], count), group.gather(found[1], count)
    links = neighbours
    labels = group.from_main(lambda: infomap_of_neighbours(*links, min_similarity, min_cluster_size).cpu())
    return labels.to(features.device)


def nearest(features: Tensor | Shard, k1: int, group: Group) -> Neighbours:
    """Indices and distances [n, k1] of this process's slice of the rows."""
    if isinstance(features, Tensor):
        rows = group.slice_of(len(features))
        return ops.knn(features, features[rows], k1, "fp32", rows.start)
    check_shard(features)
    found = NearestSoFar(features.rows, k1)
    for first, block in features.ring():
        found.offer(block, first)
        del block  # frees memory for the block after the next
    return found.lists(torch.arange(features.own.start, features.own.stop, device=features.device))


def check_shard(features: Shard) -> None:
    """Check that the rows of all processes are finite with unit norm; all processes raise the same error."""
    wrong = None
    norms = ops.squared_norms(features.rows).sqrt()
    if not bool(((norms - 1).abs() <= checks.UNIT_NORM_TOLERANCE).all()):  # also False for non-finite norms
        try:
            checks.unit_rows("features", features.rows, first=features.own.start)
        except ValueError as error:
            wrong = str(error)
    message = next((error for error in features.group.collect(wrong) if error is not None), None)
    if message is not None:
        raise ValueError(message)


def _encoding(features: Tensor | Shard, rank: Tensor, distances: Tensor, group: Group) -> CsrTensors:
    """V of this process's slice of the rows."""
    count = len(rank)
    rows = group.slice_of(count)
    if isinstance(features, Tensor):
        return encoding_of_rows(features, rank, distances, rows)
    shift = group.gather(column_shift(features.rows), count)
    i, j = missing_pairs(rank, rows)
    parts = []
    for part in _rounds(i, rows, max(_FETCHED, len(features.rows)), group):
        own = slice(part.start - rows.start, part.stop - rows.start)
        others = j[(i >= part.start) & (i < part.stop)]
        parts.append(encode_rows(rank, distances[own], shift, part, features.rows[own], others, features.fetch))
    return joined(parts)


def _rounds(i: Tensor, rows: slice, most: int, group: Group) -> list[slice]:
    """``rows`` in ranges of up to ``most`` pairs (or one row), equally many in every process; ``i``: rows of pairs."""
    pairs = torch.bincount(i - rows.start, minlength=rows.stop - rows.start).cumsum(0).tolist()
    ends: list[int] = []
    used = 0
    for row, total in enumerate(pairs):
        if total - used > most and row > (ends[-1] if ends else 0):
            ends.append(row)
            used = pairs[row - 1]
    ends.append(len(pairs))
    number = torch.tensor(len(ends), device=i.device)
    dist.all_reduce(number, dist.ReduceOp.MAX)
    ends += [len(pairs)] * (int(number) - len(ends))
    starts = [0, *ends[:-1]]
    return [slice(rows.start + start, rows.start + end) for start, end in zip(starts, ends, strict=True)]


def joined(parts: list[CsrTensors]) -> CsrTensors:
    """The rows of ``parts``, one after the other."""
    counts = torch.cat([crow.diff() for crow, _, _ in parts])
    crow = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return crow, torch.cat([col for _, col, _ in parts]), torch.cat([values for _, _, values in parts])


def centroids(features: Shard, labels: Tensor) -> Tensor:
    """``ccfast.cluster_centroids(features, labels)``, the whole of it in every process.

    The rows of a cluster go to one process, in their order; clusters are distributed so that all processes get about
    the same number of rows.
    """
    group, clusters = features.group, int(labels.max()) + 1
    sizes = torch.bincount(labels[labels >= 0], minlength=clusters)
    before = sizes.cumsum(0) - sizes
    owner = before * group.size // max(int(sizes.sum()), 1)  # ascending: each process has a range of the clusters
    own = labels[features.own]
    kept = (own >= 0).nonzero()[:, 0]
    order = kept[owner[own[kept]].argsort(stable=True)]
    sent = torch.bincount(owner[own[kept]], minlength=group.size)
    ones = [1] * group.size
    received = exchange_rows(sent, ones, ones).tolist()
    rows = exchange_rows(features.rows[order], sent.tolist(), received)
    mine = exchange_rows(own[order], sent.tolist(), received)
    first, number = (int(value) for value in ((owner < group.rank).sum(), (owner == group.rank).sum()))
    found = cluster_centroids(rows, mine - first) if number else rows.new_empty(0, rows.shape[1])
    return group.gather_stretches(found, torch.bincount(owner, minlength=group.size).tolist())
