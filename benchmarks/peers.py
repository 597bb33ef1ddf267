"""What people would use instead of ccfast: PyTorch, eager and compiled, faiss and scikit-learn."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from unittest import mock

import torch
import torch.nn.functional as F
from scipy.sparse import csr_matrix
from sklearn.cluster import DBSCAN
from torch import Tensor

import ccfast.reference.jaccard as reference_jaccard
from ccfast import reference


def knn_by_topk(features: Tensor, k: int, dtype: torch.dtype = torch.float32, block: int = 2048) -> Tensor:
    """Products and topk, by blocks of rows: the indices for unit rows, near ties in any order."""
    operand = features.to(dtype)
    return torch.cat([(rows @ operand.T).topk(k).indices for rows in operand.split(block)])


def knn_by_topk_half(features: Tensor, k: int) -> Tensor:
    """The same in bfloat16, which confuses neighbours that are about as near."""
    return knn_by_topk(features, k, torch.bfloat16)


def searches() -> tuple[dict[str, Callable], dict[str, str]]:
    """Other exact neighbour searches on the CPU, and why those that cannot be run cannot."""
    if importlib.util.find_spec("faiss"):
        return {"faiss": knn_by_faiss}, {}
    return {}, {"faiss": "faiss is not installed (pip install faiss-cpu)"}


def knn_by_faiss(features: Tensor, k: int) -> Tensor:
    """faiss's exact index, built and searched."""
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatIP(features.shape[1])
    rows = features.numpy()
    index.add(rows)
    return torch.from_numpy(index.search(rows, k)[1])


def scikit_learn_dbscan(distances: Tensor, eps: float, min_samples: int = 4) -> Tensor:
    """scikit-learn on the same distances, sparse or dense."""
    distances = distances.cpu()
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


@cache
def _compiled_loss():
    # The whole graph: or a size too many would quietly run as it is.
    return torch.compile(loss_in_eager_torch, dynamic=True, fullgraph=True)


def loss_compiled(features: Tensor, memory: Tensor, labels: Tensor, temperature: float = 0.05) -> Tensor:
    """torch.compile of :func:`loss_in_eager_torch`."""
    return _compiled_loss()(features, memory, labels, temperature)


def missing_linear_cross_entropy() -> str | None:
    """Why torch's own fused loss cannot be run, or None."""
    return None if hasattr(F, "linear_cross_entropy") else f"torch {torch.__version__} has no linear_cross_entropy"


def linear_cross_entropy(features: Tensor, memory: Tensor, labels: Tensor, temperature: float = 0.05) -> Tensor:
    """The same through torch's function for both (torch >= 2.13), which by default makes all logits."""
    return F.linear_cross_entropy(F.normalize(features) / temperature, memory, labels)


def linear_cross_entropy_chunked(features: Tensor, memory: Tensor, labels: Tensor, temperature: float = 0.05) -> Tensor:
    """The same by chunks of the batch, which also computes the gradient in the forward pass."""
    options = torch.nn.LinearCrossEntropyOptions()
    return F.linear_cross_entropy(F.normalize(features) / temperature, memory, labels, options=options)


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
