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
        labels: ``[N]`` integers; clusters are 0 to C - 1 and all have members; -1 (noise) is left out.

    Returns:
        ``[C, D]`` in the dtype of ``features``; ``[0, D]`` when every label is -1.

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
    """The momentum update of the cluster memory from a batch, in place (Cluster Contrast, and the modes of others).

    With momentum m, a normalised feature x and its pseudo-label y, a row moves to ``mix(x)``, which is
    ``normalise(m M[y] + (1 - m) x)``. Which x of a cluster's samples:

    - ``"sequential"``: every one, in batch order; each step starts from the row that the step before left.
    - ``"hardest"``: the one of lowest inner product with the old ``M[y]``, or with ``reference[y]`` where a
      ``reference`` is given (PCLHD measures against a memory of means).
    - ``"mean"``: their mean, not normalised before (HHCL).
    - ``"last"``: the last one (InstDisc).
    - ``"replace"``: ``M[y] = x`` for the last one, without mixing.

    With ``groups`` (cameras), the rules of 3C; a group is what the samples of one cluster with one camera are, groups
    stand in the order of their first samples, and similarities are inner products with the old ``M[y]``:

    - ``"group_first"`` (cm_camera): the first sample of each group, one after the other.
    - ``"group_hardest"`` (cm_hard_camera): the sample of lowest similarity of each group, one after the other.
    - ``"group_mean"`` (tccl_camera): of the groups' normalised means, the one of lowest similarity.
    - ``"group_harmonic"`` (hd_camera): with ``a = 1 - x . M[y]`` and ``b = 1 + x . normalise(mean of x's group)``, the
      sample of highest ``a b / (a + b)``.

    Among equal candidates the first one counts: the first in the batch, or in the first of the groups.

    Args:
        memory: ``[C, D]`` float32 or float64, changed in place. The other tensors may share memory with it: they are
            read as they were before.
        features: ``[B, D]`` in the dtype of ``memory``, rows of unit norm within 1e-3. Under autocast any
            floating-point dtype; half rows are then normalised once more in the dtype of ``memory``.
        labels: ``[B]`` integers in ``[0, C)``; -1 (noise) is skipped.
        momentum: m in ``[0, 1]``, the share of the old row that stays; ``"replace"`` does not use it.
        mode: one of the above.
        reference: ``[C, D]`` in the dtype of ``memory``, for ``"hardest"`` only.
        groups: ``[B]`` integers, any values, for the modes of groups and only for them.

    Raises:
        TypeError: a tensor of another dtype or layout.
        ValueError: an empty input, other shapes, labels or momentum out of range, an unknown mode, ``reference`` or
            ``groups`` with a mode that has no use for it, a memory with elements that overlap (as after ``expand``),
            non-finite or un-normalised rows of ``features``, non-finite values in the rows of ``memory`` or
            ``reference`` that the batch has labels of; ``memory`` is then unchanged. On CUDA nothing waits for the
            device: labels out of range are skipped there, and what the rows hold is not looked at.

    Examples:
        >>> import torch, ccfast
        >>> memory = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> ccfast.update_memory_(memory, torch.tensor([[0.0, 1.0]]), torch.tensor([0]), momentum=0.0)
        >>> memory.tolist()
        [[0.0, 1.0], [0.0, 1.0]]

        With cameras, of the groups' means the least similar one:

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
    """:func:`update_memory_` that can normalise the features on the way."""
    checks.changed_in_place("memory", memory)
    if torch.is_autocast_enabled(memory.device.type):
        memory = checks.matrix("memory", memory, checks.SINGLE_OR_DOUBLE)
        features = checks.matrix("features", features, checks.ANY_FLOAT)
        normalize = normalize or features.dtype in checks.HALF  # half rows are of unit norm only to their precision
        features = features.to(memory.dtype)
    memory, features, labels, momentum, reference, groups = arguments.update_memory_(
        memory, features, labels, momentum, mode, reference, groups
    )
    torch.ops.ccfast.update_memory_(memory, features, labels, momentum, mode, normalize, reference, groups)


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
