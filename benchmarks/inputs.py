"""Shared inputs of the benchmarks: seeded, and clustered like re-ID features."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import ccfast
from benchmarks import stages

IMAGES_PER_IDENTITY = 17  # Market-1501's training set: 12,936 images of 751 identities
#: Norm of the noise around an identity's centre, which has norm 1. At 2, members of an identity have a cosine
#: similarity of about 0.2; :func:`neighbour_statistics` describes the resulting neighbour lists.
NOISE = 2.0


#: The device on which inputs are built, and the file of features that replaces the synthetic ones.
_device = torch.device("cpu")
_file: Path | None = None


def use_device(device: torch.device) -> None:
    """Build the inputs there."""
    global _device
    _device = device


def on_cuda() -> bool:
    """Whether inputs are built on a GPU, which determines the peers."""
    return _device.type == "cuda"


def use_features(path: Path) -> None:
    """Take the features from a ``.npy`` file; its rows are normalised."""
    global _file
    _file = path


def feature_sizes(sizes: list[dict]) -> list[dict]:
    """The sizes, or those of the file of features with the other arguments of the first."""
    if _file is None:
        return sizes
    rows, dim = np.load(_file, mmap_mode="r").shape
    return [{**sizes[0], "N": rows, "D": dim}]


def feature_bytes(N: int, D: int, **_) -> float:
    """Float32 features."""
    return 4.0 * N * D


@lru_cache(maxsize=1)
def clustered_features(rows: int, dim: int, noise: float = NOISE) -> Tensor:
    """Unit rows around unit centres, ``rows // 17`` of them, in no order; see :func:`neighbour_statistics`."""
    if _file is not None and np.load(_file, mmap_mode="r").shape == (rows, dim):
        return F.normalize(torch.from_numpy(np.load(_file)).to(_device, torch.float32), dim=1)
    generator = torch.Generator(_device).manual_seed(0)
    identities = rows // IMAGES_PER_IDENTITY
    centres = F.normalize(torch.randn(identities, dim, generator=generator, device=_device), dim=1)
    ids = torch.randint(identities, (rows,), generator=generator, device=_device)
    scatter = torch.randn(rows, dim, generator=generator, device=_device).mul_(noise / dim**0.5)
    return F.normalize(scatter.add_(centres[ids]), dim=1)


@lru_cache(maxsize=1)
def neighbours(rows: int, dim: int, k: int, noise: float = NOISE) -> tuple[Tensor, Tensor]:
    """Indices and distances of the k nearest rows of :func:`clustered_features`."""
    return ccfast.knn(clustered_features(rows, dim, noise), k)


@lru_cache(maxsize=8)
def neighbour_statistics(
    N: int, D: int, k1: int = 30, k2: int = 6, eps: float = 0.6, noise: float = NOISE, **_
) -> dict[str, float | str]:
    """The numbers that determine the cost of the sparse stages on :func:`clustered_features`, as means per row."""
    given = (clustered_features(N, D, noise), *neighbours(N, D, k1, noise))
    within = stages.sparse_jaccard(*given, k2, eps)
    labels = ccfast.dbscan(within, eps)
    return {
        "features": _file.name if _file else "synthetic",
        "reciprocal neighbours per row": round(_reciprocal_neighbours(given[1]), 1),
        "V entries a row": round(stages.encode(*given, 1)[1].numel() / N, 1),
        "V entries per row after query expansion": round(stages.encode(*given, k2)[1].numel() / N, 1),
        "rows within eps of a row, itself included": round(within.values().numel() / N, 1),
        "clusters": int(labels.max()) + 1,
        "noise": int((labels == -1).sum()),
    }


def _reciprocal_neighbours(rank: Tensor) -> float:
    rows = torch.arange(len(rank), device=rank.device)
    found = 0
    for row, near in zip(rows.split(1024), rank.split(1024), strict=True):
        found += int((rank[near] == row[:, None, None]).any(2).sum())
    return found / len(rank)


def memory_batch(batch: int, dim: int, clusters: int, instances: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    """(memory, features, labels): a batch of ``batch / instances`` clusters as the sampler draws it, unit rows."""
    generator = torch.Generator(_device).manual_seed(0)
    memory = F.normalize(torch.randn(clusters, dim, generator=generator, device=_device), dim=1)
    drawn = torch.randperm(clusters, generator=generator, device=_device)[: batch // instances]
    labels = drawn.repeat_interleave(instances)
    noise = torch.randn(batch, dim, generator=generator, device=_device) * (NOISE / dim**0.5)
    return memory, F.normalize(memory[labels] + noise, dim=1), labels
