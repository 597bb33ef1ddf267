"""ccfast's stages one by one, as ``ccfast.jaccard_distance`` combines them."""

from __future__ import annotations

import torch
from torch import Tensor

import ccfast
from ccfast.ops.jaccard import column_shift, csr_tensor, half_columns

Csr = tuple[Tensor, Tensor, Tensor]
ops = torch.ops.ccfast


def encode(features: Tensor, rank: Tensor, distances: Tensor, k2: int) -> Csr:
    """V from the neighbours, with query expansion."""
    v = ops.encode_neighbours(features, rank, distances, half_columns(rank.shape[1]), None, column_shift(features))
    return v if k2 == 1 else ops.expand_queries(*v, rank, k2)


def encoding(features: Tensor, rank: Tensor, distances: Tensor, k2: int) -> Tensor:
    """V from the neighbours, as ``ccfast.k_reciprocal_encoding`` returns it."""
    return csr_tensor(encode(features, rank, distances, k2), len(features))


def dense_jaccard(features: Tensor, rank: Tensor, distances: Tensor, k2: int) -> Tensor:
    """The dense Jaccard distance from the neighbours."""
    rows = len(features)
    return ops.dense_jaccard(*encode(features, rank, distances, k2), 0, rows, 0, rows)


def sparse_jaccard(features: Tensor, rank: Tensor, distances: Tensor, k2: int, eps: float) -> Tensor:
    """The sparse Jaccard distance from the neighbours."""
    return csr_tensor(ops.sparse_jaccard(*encode(features, rank, distances, k2), eps), len(features))


def labels_after_knn(features: Tensor, rank: Tensor, distances: Tensor, k2: int, eps: float) -> Tensor:
    """DBSCAN labels from the neighbours."""
    return ccfast.dbscan(sparse_jaccard(features, rank, distances, k2, eps), eps)


def labels(features: Tensor, k1: int, k2: int, eps: float) -> Tensor:
    """DBSCAN labels from the features."""
    return ccfast.dbscan(ccfast.jaccard_distance(features, k1, k2, max_distance=eps), eps)
