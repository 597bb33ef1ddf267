"""The cluster memory: its first rows and its momentum updates (Dai et al. 2021, sections 3.2-3.3)."""

from __future__ import annotations

import torch
from torch import Tensor

from ccfast import _checks as checks

MODES = ("sequential", "hardest", "mean")
_MIN_NORM = 1e-12


def cluster_centroids(features: Tensor, labels: Tensor) -> Tensor:
    """Mean of each cluster's members, normalised (Dai et al. 2021, eq. 3); members labelled -1 are left out.

    Args:
        features: ``[N, D]`` float32 or float64.
        labels: ``[N]`` integers; clusters ``0..C-1``, each with at least one member, or -1.

    Returns:
        ``[C, D]`` in the dtype of ``features``, C one more than the largest label (0 rows when all are -1). The mean
        is taken in float64; one of norm zero stays zero.

    Raises:
        TypeError: not a tensor, another dtype.
        ValueError: wrong shape, empty, another length, different devices, a label below -1, a cluster without members.
    """
    features = checks.matrix("features", features, checks.SINGLE_OR_DOUBLE).detach()
    labels = checks.vector_of_integers("labels", labels, features.shape[0], "features")
    checks.same_device(features=features, labels=labels)
    if (labels < -1).any():
        position = int((labels < -1).nonzero()[0, 0])
        raise ValueError(f"labels: expected -1 or more, got {int(labels[position])} at position {position}")
    checks.finite_rows("features", features)

    centroids = features.new_empty(int(labels.max()) + 1, features.shape[1])
    for cluster in range(len(centroids)):
        members = features[labels == cluster]
        if len(members) == 0:
            raise ValueError(f"labels: expected every label in [0, {len(centroids)}), got no member of {cluster}")
        centroids[cluster] = _normalised(members.double().mean(0))
    return centroids


def update_memory_(
    memory: Tensor, features: Tensor, labels: Tensor, momentum: float = 0.1, mode: str = "sequential"
) -> None:
    """Move rows of the memory towards a batch, in place: ``normalise(m * row + (1 - m) * x)``.

    - "sequential" (eq. 4 as the authors run it): for every sample in batch order, its cluster's row. At a small
      momentum the last sample of a cluster dominates.
    - "hardest": for every cluster in the batch once, with the sample of lowest inner product with the old row, the
      first one on ties.
    - "mean": for every cluster in the batch once, with the mean of its samples, not normalised before mixing.

    Args:
        memory: ``[C, D]`` float32 or float64, changed in place, contiguous or not; on an error it is left as it was.
        features: ``[B, D]`` in the dtype of ``memory``, rows of unit norm within 1e-3.
        labels: ``[B]`` integers in ``[0, C)``, or -1 for samples to skip.
        momentum: m, in ``[0, 1]``.
        mode: "sequential", "hardest" or "mean".

    Raises:
        TypeError: not a tensor, another dtype, different dtypes.
        ValueError: wrong shape, empty, different columns, lengths or devices, a label out of range, momentum out of
            range, an unknown mode, non-finite or un-normalised features.
    """
    if not isinstance(memory, Tensor):
        raise TypeError(f"memory: expected a torch.Tensor, which is changed in place, got {type(memory).__name__}")
    memory = checks.matrix("memory", memory, checks.SINGLE_OR_DOUBLE).detach()
    features = checks.matrix("features", features, checks.SINGLE_OR_DOUBLE).detach()
    checks.same_columns(memory=memory, features=features)
    checks.same_dtype(memory=memory, features=features)
    labels = checks.vector_of_integers("labels", labels, features.shape[0], "features")
    checks.same_device(memory=memory, features=features, labels=labels)
    momentum = checks.real("momentum", momentum, low=0, high=1)
    checks.choice("mode", mode, MODES)
    checks.labels_in_range("labels", labels, memory.shape[0])
    checks.unit_rows("features", features)

    if mode == "sequential":
        for x, label in zip(features, labels.tolist(), strict=True):
            if label != -1:
                memory[label] = _mixed(memory[label], x, momentum)
        return
    for label in labels.unique().tolist():
        if label == -1:
            continue
        samples, row = features[labels == label], memory[label]
        if mode == "hardest":
            products = samples.double() @ row.double()
            x = samples[(products == products.min()).nonzero()[0, 0]]
        else:
            x = samples.double().mean(0).to(row.dtype)
        memory[label] = _mixed(row, x, momentum)


def _mixed(row: Tensor, x: Tensor, momentum: float) -> Tensor:
    return _normalised(momentum * row + (1 - momentum) * x)


def _normalised(row: Tensor) -> Tensor:
    """Unit row; the norm is accumulated in float64, and a row of zeros stays what it is."""
    return row / torch.linalg.vector_norm(row.double()).clamp_min(_MIN_NORM).to(row.dtype)
