"""The cluster memory: centroids of an epoch and their momentum update."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ccfast import _arguments as arguments
from ccfast import _checks as checks


def cluster_centroids(features: Any, labels: Any) -> Tensor:
    """Mean of every cluster's members, normalised (Cluster Contrast, section 3.2).

    Args:
        features: ``[N, D]`` float32 or float64.
        labels: ``[N]`` integers; clusters are 0 to C - 1, each with at least one member; -1 (noise) is left out.

    Returns:
        ``[C, D]`` in the dtype of ``features``; ``[0, D]`` if every label is -1.

    Raises:
        TypeError: a tensor of another dtype or layout.
        ValueError: an empty input, labels of another length or below -1, a cluster without a member, non-finite rows.

    Examples:
        >>> import torch, ccfast
        >>> features = torch.tensor([[2.0, 0.0], [4.0, 0.0], [0.0, 3.0], [9.0, 9.0]])
        >>> ccfast.cluster_centroids(features, torch.tensor([0, 0, 1, -1])).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    return torch.ops.ccfast.cluster_centroids(*arguments.cluster_centroids(features, labels))


def update_memory_(
    memory: Tensor,
    features: Any,
    labels: Any,
    momentum: float = 0.1,
    mode: str = "sequential",
    *,
    reference: Any = None,
    groups: Any = None,
) -> None:
    """The momentum update of the cluster memory from a batch, in place (Cluster Contrast, and other methods' modes).

    With momentum m, a normalised feature x and its pseudo-label y, a row becomes ``normalise(m M[y] + (1 - m) x)``. The
    mode says which samples x of a cluster are used:

    - ``"sequential"``: all of them, in batch order; each step starts from the result of the previous step.
    - ``"hardest"``: the one with the lowest inner product with the old ``M[y]``, or with ``reference[y]`` if
      ``reference`` is given (PCLHD compares with a memory of means).
    - ``"mean"``: their mean, which is not normalised first (HHCL).
    - ``"last"``: the last one (InstDisc).
    - ``"replace"``: ``M[y] = x`` for the last one, without mixing.

    With ``groups`` (cameras), the rules of 3C. A group consists of the samples with the same cluster and the same
    camera; groups are in the order of their first samples; similarities are inner products with the old ``M[y]``:

    - ``"group_first"`` (cm_camera): the first sample of each group, one after the other.
    - ``"group_hardest"`` (cm_hard_camera): the sample of each group with the lowest similarity, one after the other.
    - ``"group_mean"`` (tccl_camera): the normalised mean of a group, of the group with the lowest similarity.
    - ``"group_harmonic"`` (hd_camera): with ``a = 1 - x . M[y]`` and ``b = 1 + x . normalise(mean of x's group)``, the
      sample with the highest ``a b / (a + b)``.

    Of equal candidates the first one is used: the first in the batch, or in the first of the groups.

    Args:
        memory: ``[C, D]`` float32 or float64, changed in place. The other tensors may share storage with it; their
            values from before the call are used.
        features: ``[B, D]`` in the dtype of ``memory``, rows of unit norm within 1e-3. Under autocast any
            floating-point dtype; half rows are then normalised again in the dtype of ``memory``.
        labels: ``[B]`` integers in ``[0, C)``; -1 (noise) is skipped.
        momentum: m in ``[0, 1]``, the share of the old row that is kept; ``"replace"`` does not use it.
        mode: one of the above.
        reference: ``[C, D]`` in the dtype of ``memory``, for ``"hardest"`` only.
        groups: ``[B]`` integers, any values; for the group modes only.

    Raises:
        TypeError: a tensor of another dtype or layout.
        ValueError: an empty input, wrong shapes, labels or momentum out of range, an unknown mode, ``reference`` or
            ``groups`` with a mode that does not use it, a memory whose elements overlap (as after ``expand``),
            non-finite or un-normalised rows of ``features``, non-finite values in the rows of ``memory`` or
            ``reference`` with labels in the batch; ``memory`` is then unchanged. On CUDA these checks would have to
            wait for the device: labels out of range are skipped there, and values are not checked.

    Examples:
        >>> import torch, ccfast
        >>> memory = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> ccfast.update_memory_(memory, torch.tensor([[0.0, 1.0]]), torch.tensor([0]), momentum=0.0)
        >>> memory.tolist()
        [[0.0, 1.0], [0.0, 1.0]]

        With cameras, the mean of the group that is least similar:

        >>> memory, features = torch.eye(2), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> labels, cameras = torch.tensor([0, 0]), torch.tensor([3, 7])
        >>> ccfast.update_memory_(memory, features, labels, momentum=0.0, mode="group_mean", groups=cameras)
        >>> memory.tolist()
        [[0.0, 1.0], [0.0, 1.0]]
    """
    update_memory_from(memory, features, labels, momentum, mode, normalize=False, reference=reference, groups=groups)


def update_memory_from(
    memory: Tensor,
    features: Any,
    labels: Any,
    momentum: float,
    mode: str,
    normalize: bool,
    *,
    reference: Any = None,
    groups: Any = None,
) -> None:
    """:func:`update_memory_`, which can also normalise the features."""
    checks.changed_in_place("memory", memory)
    if torch.is_autocast_enabled(memory.device.type):
        memory = checks.matrix("memory", memory, checks.SINGLE_OR_DOUBLE)
        features = checks.matrix("features", features, checks.ANY_FLOAT)
        normalize = normalizes(features, normalize)
        features = features.to(memory.dtype)
    memory, features, labels, momentum, reference, groups = arguments.update_memory_(
        memory, features, labels, momentum, mode, reference, groups
    )
    torch.ops.ccfast.update_memory_(memory, features, labels, momentum, mode, normalize, reference, groups)


def normalizes(features: Tensor, normalize: bool) -> bool:
    """Whether an update normalises the rows: half rows have unit norm only within their precision."""
    return normalize or features.dtype in checks.HALF


@torch.library.register_fake("ccfast::cluster_centroids")
def _(features: Tensor, labels: Tensor) -> Tensor:
    return features.new_empty((torch.library.get_ctx().new_dynamic_size(), features.shape[1]))


@torch.library.register_fake("ccfast::update_memory_")
def _(
    memory: Tensor,
    features: Tensor,
    labels: Tensor,
    momentum: float,
    update_mode: str,
    normalize: bool,
    reference: Tensor | None = None,
    groups: Tensor | None = None,
) -> None:
    return None
