"""Inputs that the benchmarks share: seeded, clustered as re-ID features are."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

import ccfast
from benchmarks import stages

IMAGES_PER_IDENTITY = 17  # Market-1501's training set: 12,936 images of 751 identities
#: Norm of what is added to an identity's centre, which has norm 1. At 2, members of an identity have a cosine
#: similarity of about 0.2; :func:`neighbour_statistics` tells what that makes of the neighbour lists.
NOISE = 2.0


@lru_cache(maxsize=2)
def clustered_features(rows: int, dim: int, noise: float = NOISE) -> Tensor:
    """Unit rows around unit centres, ``rows // 17`` of them, in no order; see :func:`neighbour_statistics`."""
    generator = torch.Generator().manual_seed(0)
    identities = rows // IMAGES_PER_IDENTITY
    centres = F.normalize(torch.randn(identities, dim, generator=generator), dim=1)
    ids = torch.randint(identities, (rows,), generator=generator)
    scatter = torch.randn(rows, dim, generator=generator).mul_(noise / dim**0.5)
    return F.normalize(scatter.add_(centres[ids]), dim=1)


@lru_cache(maxsize=2)
def neighbours(rows: int, dim: int, k: int, noise: float = NOISE) -> tuple[Tensor, Tensor]:
    """Indices and distances of the k nearest rows of :func:`clustered_features`."""
    return ccfast.knn(clustered_features(rows, dim, noise), k)


@lru_cache(maxsize=4)
def neighbour_statistics(N: int, D: int, k1: int, k2: int, eps: float, noise: float = NOISE) -> dict[str, float]:
    """What decides the cost of the sparse stages on :func:`clustered_features`, as means a row."""
    given = (clustered_features(N, D, noise), *neighbours(N, D, k1, noise))
    within = stages.sparse_jaccard(*given, k2, eps)
    labels = ccfast.dbscan(within, eps)
    return {
        "V entries a row": round(stages.encode(*given, 1)[1].numel() / N, 1),
        "V entries a row after query expansion": round(stages.encode(*given, k2)[1].numel() / N, 1),
        "rows within eps of a row, itself included": round(within.values().numel() / N, 1),
        "clusters": int(labels.max()) + 1,
        "noise": int((labels == -1).sum()),
    }


def memory_batch(batch: int, dim: int, clusters: int, instances: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    """(memory, features, labels): a batch of ``batch / instances`` clusters as the sampler draws it, unit rows."""
    generator = torch.Generator().manual_seed(0)
    memory = F.normalize(torch.randn(clusters, dim, generator=generator), dim=1)
    labels = torch.randperm(clusters, generator=generator)[: batch // instances].repeat_interleave(instances)
    noise = torch.randn(batch, dim, generator=generator) * (NOISE / dim**0.5)
    return memory, F.normalize(memory[labels] + noise, dim=1), labels
