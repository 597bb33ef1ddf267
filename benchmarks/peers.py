"""What people would use instead of ccfast: eager PyTorch and scikit-learn."""

from __future__ import annotations

from unittest import mock

import torch
import torch.nn.functional as F
from scipy.sparse import csr_matrix
from sklearn.cluster import DBSCAN
from torch import Tensor

import ccfast.reference.jaccard as reference_jaccard
from ccfast import reference


def knn_by_topk(features: Tensor, k: int, block: int = 2048) -> Tensor:
    """Float32 products and topk, by blocks of rows: the indices for unit rows, near ties in any order."""
    return torch.cat([(rows @ features.T).topk(k).indices for rows in features.split(block)])


def scikit_learn_dbscan(distances: Tensor, eps: float, min_samples: int = 4) -> Tensor:
    """scikit-learn on the same distances, sparse or dense."""
    matrix = distances.numpy() if distances.layout is torch.strided else None
    if matrix is None:
        parts = distances.values(), distances.col_indices(), distances.crow_indices()
        matrix = csr_matrix(tuple(part.numpy() for part in parts), shape=tuple(distances.shape))
    labels = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit_predict(matrix)
    return torch.from_numpy(labels)


def reference_after_knn(function, neighbours: tuple[Tensor, Tensor], *arguments, **options):
    """A function of ``ccfast.reference.jaccard`` with the neighbours given instead of searched for."""
    with mock.patch.object(reference_jaccard, "knn", lambda *_: neighbours):
        return function(*arguments, **options)


def reference_labels(features: Tensor, k1: int, k2: int, eps: float) -> Tensor:
    """Features to DBSCAN labels by the references."""
    return reference.dbscan(reference.jaccard_distance(features, k1, k2, max_distance=eps), eps)


def loss_in_eager_torch(features: Tensor, memory: Tensor, labels: Tensor, temperature: float = 0.05) -> Tensor:
    """The loss as it is usually written."""
    return F.cross_entropy(F.normalize(features) @ memory.T / temperature, labels)


def update_in_eager_torch(memory: Tensor, features: Tensor, labels: Tensor, momentum: float = 0.1) -> None:
    """The sequential update as it is usually written: one sample after the other."""
    for x, y in zip(features, labels, strict=True):
        memory[y] = momentum * memory[y] + (1 - momentum) * x
        memory[y] /= memory[y].norm()


def centroids_in_eager_torch(features: Tensor, labels: Tensor) -> Tensor:
    """Sums by index_add, normalised."""
    kept = labels >= 0
    sums = features.new_zeros(int(labels.max()) + 1, features.shape[1])
    return F.normalize(sums.index_add_(0, labels[kept], features[kept]))
