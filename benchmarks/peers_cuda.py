"""Peers that run only on a GPU: Liger, cut-cross-entropy, faiss, cuVS and cuML. All are optional."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

Providers = dict[str, Callable]


def available(wanted: dict[str, tuple[Callable, str, str]]) -> tuple[Providers, dict[str, str]]:
    """The entries of ``name -> (function, module, package)`` that can run, and the reasons for the others."""
    found = {name: importlib.util.find_spec(module) is not None for name, (_, module, _) in wanted.items()}
    missing = {name: f"not installed (pip install {wanted[name][2]})" for name in wanted if not found[name]}
    return {name: wanted[name][0] for name in wanted if found[name]}, missing


def losses() -> tuple[Providers, dict[str, str]]:
    """Fused products and cross-entropies."""
    return available(
        {
            "Liger": (liger_loss, "liger_kernel", "liger-kernel"),
            "cut-cross-entropy, bf16": (cut_cross_entropy_loss, "cut_cross_entropy", "cut-cross-entropy"),
        }
    )


def searches() -> tuple[Providers, dict[str, str]]:
    """Exact neighbours."""
    providers, missing = available(
        {
            "faiss": (knn_by_faiss, "faiss", "faiss-gpu-cu12"),
            "cuVS": (knn_by_cuvs, "cuvs", "cuvs-cu13"),
        }
    )
    if "faiss" in providers and (why := _missing_in_faiss()):
        missing["faiss"] = why
        del providers["faiss"]
    return providers, missing


def clusterings() -> tuple[Providers, dict[str, str]]:
    """DBSCAN on dense distances."""
    return available({"cuML": (cuml_dbscan, "cuml", "cuml-cu13")})


def liger_loss(features: Tensor, memory: Tensor, labels: Tensor, temperature: float = 0.05) -> Tensor:
    """Liger's fused linear cross-entropy: mean over the batch, float32 in, float32 products by chunks of the batch."""
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    return liger_fused_linear_cross_entropy(F.normalize(features) / temperature, memory, labels)


def cut_cross_entropy_loss(features: Tensor, memory: Tensor, labels: Tensor, temperature: float = 0.05) -> Tensor:
    """cut-cross-entropy: its gradient wants half precision. No gradient is filtered away here, as it is by default."""
    from cut_cross_entropy import linear_cross_entropy

    embedded = (F.normalize(features) / temperature).bfloat16()
    return linear_cross_entropy(embedded, memory.bfloat16(), labels, filter_eps=None).float()


def _missing_in_faiss() -> str | None:
    """Why the installed faiss cannot use the GPU, or None."""
    try:
        import faiss
    except ImportError as error:
        return f"cannot be imported: {error}"
    return None if hasattr(faiss, "StandardGpuResources") else "has no GPU code (pip install faiss-gpu-cu12)"


@cache
def _faiss_resources():
    import faiss
    import faiss.contrib.torch_utils  # has faiss take CUDA tensors, on their stream

    return faiss.StandardGpuResources()


def knn_by_faiss(features: Tensor, k: int) -> Tensor:
    """faiss's brute force on the GPU, float32, by inner product: the indices for unit rows."""
    import faiss

    resources = _faiss_resources()
    return faiss.knn_gpu(resources, features, features, k, metric=faiss.METRIC_INNER_PRODUCT)[1]


@cache
def _cuvs_resources():
    from cuvs.common import Resources

    return Resources()


def knn_by_cuvs(features: Tensor, k: int) -> Tensor:
    """cuVS's brute force, float32, by squared Euclidean distance."""
    from cuvs.neighbors import brute_force

    resources = _cuvs_resources()
    indices = torch.empty(len(features), k, dtype=torch.int64, device=features.device)
    distances = torch.empty(len(features), k, dtype=torch.float32, device=features.device)
    index = brute_force.build(features, metric="sqeuclidean", resources=resources)
    brute_force.search(index, features, k, neighbors=indices, distances=distances, resources=resources)
    resources.sync()
    return indices


def cuml_dbscan(distances: Tensor, eps: float, min_samples: int = 4) -> Tensor:
    """cuML's DBSCAN on a dense matrix of distances."""
    from cuml.cluster import DBSCAN

    clustering = DBSCAN(
        eps=eps, min_samples=min_samples, metric="precomputed", calc_core_sample_indices=False, output_type="cupy"
    )
    return torch.from_dlpack(clustering.fit_predict(distances, out_dtype="int64"))
