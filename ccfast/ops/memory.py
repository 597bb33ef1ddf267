"""The cluster memory: centroids of an epoch and their momentum update."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ccfast import _checks as checks

MODES = ("sequential", "hardest", "mean")


def cluster_centroids(features: Any, labels: Any) -> Tensor:
    """Mean of every cluster's members, normalised (Cluster Contrast, section 3.2).

    Args:
        features: ``[N, D]`` float32 or float64.
        labels: ``[N]`` integers; clusters are 0 to C - 1 and all have members; -1 (noise) is left out.

    Returns:
        ``[C, D]`` in the dtype of ``features``; ``[0, D]`` when every label is -1.

    Raises:
        TypeError: a tensor of another dtype or layout.
        ValueError: an empty input, labels of another length or below -1, a cluster without a member, non-finite rows.
    """
    features = checks.matrix("features", features, checks.SINGLE_OR_DOUBLE)
    labels = checks.vector_of_integers("labels", labels, features.shape[0], "features")
    checks.same_device(features=features, labels=labels)
    return torch.ops.ccfast.cluster_centroids(features.detach(), labels)


def update_memory_(memory: Tensor, features: Any, labels: Any, momentum: float = 0.1, mode: str = "sequential") -> None:
    """Momentum update of the cluster memory, in place (Cluster Contrast, equation 3 and the authors' two variants).

    With momentum m, a normalised feature x and its pseudo-label y:

    - ``"sequential"``: for each sample in batch order ``M[y] <- normalise(m M[y] + (1 - m) x)``.
    - ``"hardest"``: per cluster present, one such update with the sample of lowest inner product with the old ``M[y]``
      (the first on ties).
    - ``"mean"``: per cluster present, one such update with the batch mean of its samples, not normalised before mixing.

    Args:
        memory: ``[C, D]`` float32 or float64, changed in place.
        features: ``[B, D]`` in the dtype of ``memory``, rows of unit norm within 1e-3. Under autocast any
            floating-point dtype; half rows are then normalised once more in the dtype of ``memory``.
        labels: ``[B]`` integers in ``[0, C)``; -1 (noise) is skipped.
        momentum: m in ``[0, 1]``, the share of the old row that stays.
        mode: one of the above.

    Raises:
        TypeError: a tensor of another dtype or layout.
        ValueError: an empty input, other shapes, labels or momentum out of range, an unknown mode, non-finite or
            un-normalised rows; ``memory`` is then unchanged. On CUDA nothing waits for the device: labels out of range
            are skipped there, and what the rows hold is not looked at.
    """
    if not isinstance(memory, Tensor):
        raise TypeError(f"memory: expected a torch.Tensor, which is changed in place, got {type(memory).__name__}")
    update_memory_from(memory, features, labels, momentum, mode, normalize=False)


def update_memory_from(memory: Tensor, features: Any, labels: Any, momentum: float, mode: str, normalize: bool) -> None:
    """:func:`update_memory_` that can normalise the features on the way."""
    memory = checks.matrix("memory", memory, checks.SINGLE_OR_DOUBLE)
    if torch.is_autocast_enabled(memory.device.type):
        features = checks.matrix("features", features, checks.ANY_FLOAT)
        normalize = normalize or features.dtype in checks.HALF  # half rows are of unit norm only to their precision
        features = features.to(memory.dtype)
    features = checks.matrix("features", features, checks.SINGLE_OR_DOUBLE)
    labels = checks.vector_of_integers("labels", labels, features.shape[0], "features")
    checks.same_dtype(memory=memory, features=features)
    checks.same_columns(memory=memory, features=features)
    checks.same_device(memory=memory, features=features, labels=labels)
    momentum = checks.real("momentum", momentum, low=0, high=1)
    checks.choice("mode", mode, MODES)
    torch.ops.ccfast.update_memory_(memory.detach(), features.detach(), labels, momentum, mode, normalize)


@torch.library.register_fake("ccfast::cluster_centroids")
def _(features: Tensor, labels: Tensor) -> Tensor:
    return features.new_empty((torch.library.get_ctx().new_dynamic_size(), features.shape[1]))


@torch.library.register_fake("ccfast::update_memory_")
def _(memory: Tensor, features: Tensor, labels: Tensor, momentum: float, mode: str, normalize: bool) -> None:
    return None
