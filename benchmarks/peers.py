"""Alternatives to ccfast besides eager PyTorch (ccfast.check.eager): torch.compile, faiss, others."""

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
from ccfast.check import eager


def knn_by_topk_half(features: Tensor, k: int) -> Tensor:
    """Products and topk in bfloat16, which confuses neighbours at nearly the same distance."""
    return eager.knn(features, k, torch.bfloat16)


def searches() -> tuple[dict[str, Callable], dict[str, str]]:
    """Other exact neighbour searches on the CPU, and the reasons for those that cannot run."""
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
    """A function of ``ccfast.reference.jaccard`` with given neighbours instead of a search."""
    with mock.patch.object(reference_jaccard, "knn", lambda *_: neighbours):
        return function(*arguments, **options)


def reference_labels(features: Tensor, k1: int, k2: int, eps: float) -> Tensor:
    """Features to DBSCAN labels by the references."""
    return reference.dbscan(reference.jaccard_distance(features, k1, k2, max_distance=eps), eps)


@cache
def _compiled_loss():
    # With fullgraph, a size that cannot be compiled is an error and does not run uncompiled.
    return torch.compile(eager.centroid_contrastive_loss, dynamic=True, fullgraph=True)


def loss_compiled(features: Tensor, memory: Tensor, labels: Tensor, temperature: float = 0.05) -> Tensor:
    """torch.compile of the loss in eager PyTorch."""
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
