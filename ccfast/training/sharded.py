"""Steps 2 and 3 of an epoch by several processes: each takes a slice of the rows, and all get all labels.

What they exchange is neighbour lists and sparse encodings, O(N * neighbours); N x N is never stored. The labels are
those that one process finds, bit for bit: every row is computed from the same numbers in the same order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ccfast.ops.infomap import infomap_of_neighbours
from ccfast.ops.jaccard import column_shift, csr_tensor, half_columns
from ccfast.training.group import Group

ops = torch.ops.ccfast


def jaccard_distance(features: Tensor, k1: int, k2: int, *, max_distance: float, group: Group) -> Tensor:
    """``ccfast.jaccard_distance(features, k1, k2, max_distance=max_distance)``, the whole of it in every process."""
    count = len(features)
    rows = group.slice_of(count)
    rank, distances = ops.knn(features, features[rows], k1, "fp32", rows.start)
    rank = group.gather(rank, count)
    span = (rows.start, rows.stop)
    v = ops.encode_neighbours(features, rank, distances, half_columns(k1), None, column_shift(features), *span)
    v = group.gather_csr(v, count)
    if k2 > 1:
        v = group.gather_csr(ops.expand_queries(*v, rank[rows], k2), count)
    near = ops.sparse_jaccard(*v, max_distance, *span)
    return csr_tensor(group.gather_csr(near, count), count)


def infomap(features: Tensor, k1: int, min_similarity: float, min_cluster_size: int, *, group: Group) -> Tensor:
    """``ccfast.infomap``; the search is shared, the partition is found by the main process."""
    count = len(features)
    rows = group.slice_of(count)
    found = ops.knn(features, features[rows], k1, "fp32", rows.start)
    neighbours, distances = (group.gather(part, count) for part in found)
    labels = group.from_main(
        lambda: infomap_of_neighbours(neighbours, distances, min_similarity, min_cluster_size).cpu()
    )
    return labels.to(features.device)
