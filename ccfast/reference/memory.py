"""The cluster memory: its initial rows and its momentum updates (Dai et al. 2021, sections 3.2-3.3)."""

from __future__ import annotations

import torch
from torch import Tensor

from ccfast import _arguments as arguments
from ccfast import _checks as checks

_MIN_NORM = 1e-12


def cluster_centroids(features: Tensor, labels: Tensor) -> Tensor:
    """Mean of each cluster's members, normalised (Dai et al. 2021, section 3.2); rows with the label -1 are left out.

    Args:
        features: ``[N, D]`` float32 or float64.
        labels: ``[N]`` integers; clusters ``0..C-1``, each with at least one member, or -1.

    Returns:
        ``[C, D]`` in the dtype of ``features``, where C is one more than the largest label (0 rows if all are -1). The
        mean is computed in float64; a mean of norm zero stays zero.

    Raises:
        TypeError: not a tensor, another dtype.
        ValueError: wrong shape, empty, another length, different devices, a label below -1, a cluster without members.
    """
    features, labels = arguments.cluster_centroids(features, labels)
    checks.labels_in_range("labels", labels, int(labels.max()) + 1)
    checks.finite_rows("features", features)

    centroids = features.new_empty(int(labels.max()) + 1, features.shape[1])
    for cluster in range(len(centroids)):
        members = features[labels == cluster]
        if len(members) == 0:
            last = len(centroids) - 1
            raise ValueError(f"labels: expected a member for each of the clusters 0 to {last}, got none for {cluster}")
        centroids[cluster] = _normalised(members.double().mean(0))
    return centroids


def update_memory_(
    memory: Tensor,
    features: Tensor,
    labels: Tensor,
    momentum: float = 0.1,
    mode: str = "sequential",
    *,
    reference: Tensor | None = None,
    groups: Tensor | None = None,
) -> None:
    """Update rows of the memory from a batch, in place: ``normalise(m * row + (1 - m) * x)``.

    - "sequential" (as in the authors' code): the row of its cluster for every sample, in batch order. With a small
      momentum the last sample of a cluster dominates.
    - "hardest": once per cluster in the batch, with the sample with the lowest inner product with the old row (or with
      the row of ``reference``); for ties the first one.
    - "mean": once per cluster in the batch, with the mean of its samples, which is not normalised first.
    - "last": once per cluster in the batch, with its last sample.
    - "replace": the row becomes the last sample of its cluster.
    - "group_first", "group_hardest", "group_mean", "group_harmonic": 3C's rules for samples in groups (cameras), see
      :func:`ccfast.update_memory_`.

    Args:
        memory: ``[C, D]`` float32 or float64, changed in place, contiguous or not; unchanged after an error.
        features: ``[B, D]`` in the dtype of ``memory``, rows of unit norm within 1e-3; may share memory with it.
        labels: ``[B]`` integers in ``[0, C)``, or -1 for samples to skip.
        momentum: m, in ``[0, 1]``.
        mode: one of the above.
        reference: ``[C, D]`` in the dtype of ``memory``, for "hardest".
        groups: ``[B]`` integers, for the modes of groups.

    Raises:
        TypeError: not a tensor, another dtype, different dtypes.
        ValueError: wrong shape, empty, different columns, lengths or devices, a label out of range, momentum out of
            range, an unknown mode, ``reference`` or ``groups`` with a mode that does not use it, a memory that overlaps
            itself, non-finite or un-normalised features, non-finite values in rows with labels in the batch.
    """
    memory, features, labels, momentum, reference, groups = arguments.update_memory_(
        memory, features, labels, momentum, mode, reference, groups
    )
    checks.no_overlap("memory", memory)
    checks.labels_in_range("labels", labels, memory.shape[0])
    checks.unit_rows("features", features)
    if mode != "replace":
        _finite_rows_of("memory", memory, labels)
    if reference is not None:
        _finite_rows_of("reference", reference, labels)

    features, labels, old = features.clone(), labels.clone(), memory.clone()  # they may share memory
    reference = old if reference is None else reference.clone()
    groups = None if groups is None else groups.clone()
    for label in labels.unique().tolist():
        if label == -1:
            continue
        samples, row = features[labels == label], old[label]
        if mode == "replace":
            memory[label] = samples[-1]
            continue
        for x in _chosen(samples, row, reference[label], mode, None if groups is None else groups[labels == label]):
            row = _mixed(row, x, momentum)
        memory[label] = row


def _chosen(samples: Tensor, row: Tensor, reference: Tensor, mode: str, groups: Tensor | None) -> list[Tensor]:
    """The vectors that are mixed into the row of a cluster, in this order."""
    if mode == "sequential":
        return list(samples)
    if mode == "last":
        return [samples[-1]]
    if mode == "hardest":
        return [_least_similar(samples, reference)]
    if mode == "mean":
        return [samples.double().mean(0).to(row.dtype)]
    assert groups is not None  # all other modes are modes of groups
    by_group = [samples[groups == group] for group in dict.fromkeys(groups.tolist())]
    if mode == "group_first":
        return [members[0] for members in by_group]
    if mode == "group_hardest":
        return [_least_similar(members, row) for members in by_group]
    if mode == "group_mean":
        return [_least_similar(torch.stack([_unit_mean(members) for members in by_group]), row).to(row.dtype)]
    scores = torch.cat([_harmonic(members, row) for members in by_group])
    return [torch.cat(by_group)[_first(scores == scores.max())]]


def _harmonic(members: Tensor, row: Tensor) -> Tensor:
    """``a b / (a + b)`` of a group's samples: a is large far from the row, b is large near the group's mean."""
    far = 1 - members.double() @ row.double()
    near = 1 + members.double() @ _unit_mean(members)
    total = far + near
    return torch.where(total == 0, torch.zeros_like(total), far * near / total)


def _unit_mean(members: Tensor) -> Tensor:
    return _normalised(members.double().mean(0))


def _least_similar(samples: Tensor, row: Tensor) -> Tensor:
    products = samples.double() @ row.double()
    return samples[_first(products == products.min())]


def _first(wanted: Tensor) -> int:
    return int(wanted.nonzero()[0, 0])


def _finite_rows_of(name: str, value: Tensor, labels: Tensor) -> None:
    for label in labels.unique().tolist():
        if label >= 0 and not torch.isfinite(value[label]).all():
            raise ValueError(f"{name}: expected finite values, got a non-finite value in row {label}")


def _mixed(row: Tensor, x: Tensor, momentum: float) -> Tensor:
    return _normalised(momentum * row + (1 - momentum) * x)


def _normalised(row: Tensor) -> Tensor:
    """The row with unit norm; the norm is computed in float64 without overflow; a row of zeros stays zero."""
    wide = row.double()
    largest = wide.abs().amax().clamp_min(1)
    shrunk = wide / largest
    return (shrunk / torch.linalg.vector_norm(shrunk).clamp_min(_MIN_NORM / largest)).to(row.dtype)
