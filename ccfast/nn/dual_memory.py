"""Two rows per cluster: HHCL, PCLHD, RPNR, DCMIP."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ccfast import _checks as checks
from ccfast._arguments import MODES
from ccfast.nn._moving import MovingModule, batch_of, checked_loss, wide
from ccfast.nn._softmax import counted_labels, cross_entropy
from ccfast.ops.memory import normalizes, update_memory_from
from ccfast.ops.similarity import memory_similarity

SECOND_MODES = (*MODES, "hardest-of-first")
COMBINATIONS = ("weighted", "margin")
MARGIN = 0.2


class DualMemory(MovingModule):
    """A memory with two rows per cluster, updated by two rules, and a loss against both.

    The presets are :meth:`hhcl` (Hu et al. 2021, "Hard-sample guided hybrid contrast learning"), :meth:`pclhd` (PCLHD
    and RPNR) and :meth:`dcmip` (an unofficial code's variant for MSMT17).

    Args:
        num_features: D.
        num_clusters: C.
        temperature: of the loss, above 0.
        momentum: share of the old row that an update keeps, in ``[0, 1]``.
        first: update rule of the first half, a mode of :func:`ccfast.update_memory_`.
        second: update rule of the second half: such a mode; ``"hardest-of-first"``: the sample of each cluster that is
            hardest for the old row of the first half; None: no second half, and the loss is that of the first.
        combine: ``"weighted"``: ``w (CE(first) + (1 - w) CE(second))``, as in the authors' code, not the paper (w and
            1 - w); ``"margin"``: ``0.5 (CE(second) + relu(CE(first) - 0.2))``, with the relu of the batch's mean.
        hard_weight: w.
        label_smoothing: e of :func:`ccfast.nn.smoothed_cross_entropy` in each cross-entropy.
        normalize: divide the inputs by their norm; otherwise they must have unit norm, such as an encoder's output.
        update: when the memory is updated, as in :class:`ccfast.nn.ClusterMemory`.

    Attributes:
        features: buffer ``[2C, D]`` float32, the first half and then the second; zeros until you fill it with
            ``memory.fill(centroids)``. ``[C, D]`` without a second half.

    Raises:
        ValueError: an argument out of range.

    Examples:
        >>> import torch, ccfast
        >>> memory = ccfast.nn.DualMemory.hhcl(num_features=2, num_clusters=2, momentum=0.0)
        >>> memory.fill(torch.eye(2))
        >>> inputs = torch.tensor([[1.0, 0.0], [0.0, 1.0]], requires_grad=True)
        >>> memory(inputs, torch.tensor([0, 0])).backward()
        >>> memory.features[0].tolist()  # the hardest sample of cluster 0
        [0.0, 1.0]
        >>> [round(value, 4) for value in memory.features[2].tolist()]  # the mean of its samples
        [0.7071, 0.7071]
    """

    features: Tensor

    def __init__(
        self,
        num_features: int,
        num_clusters: int,
        temperature: float = 0.05,
        momentum: float = 0.1,
        *,
        first: str = "hardest",
        second: str | None = "mean",
        combine: str = "weighted",
        hard_weight: float = 0.5,
        label_smoothing: float = 0.0,
        normalize: bool = True,
        update: str = "backward",
    ) -> None:
        super().__init__(update)
        num_features = checks.integer("num_features", num_features, low=1)
        self.num_clusters = checks.integer("num_clusters", num_clusters, low=1)
        self.temperature = checks.real("temperature", temperature, low=0, ends="(]")
        self.momentum = checks.real("momentum", momentum, low=0, high=1)
        self.first = checks.choice("first", first, MODES)
        self.second = None if second is None else checks.choice("second", second, SECOND_MODES)
        self.combine = checks.choice("combine", combine, COMBINATIONS)
        self.hard_weight = checks.real("hard_weight", hard_weight, low=0, high=1)
        self.label_smoothing = checks.real("label_smoothing", label_smoothing, low=0, high=1)
        self.normalize = bool(normalize)
        halves = 1 if second is None else 2
        self.register_buffer("features", torch.zeros(halves * self.num_clusters, num_features, dtype=torch.float32))

    @classmethod
    def hhcl(cls, num_features: int, num_clusters: int, mode: str = "CMhybrid", **options: Any) -> DualMemory:
        """HHCL's memory: mode ``"CM"``, ``"CMhard"`` or ``"CMhybrid"``; inputs of unit norm."""
        first, second = {"CM": ("sequential", None), "CMhard": ("hardest", None), "CMhybrid": ("hardest", "mean")}[
            checks.choice("mode", mode, ("CM", "CMhard", "CMhybrid"))
        ]
        return cls(num_features, num_clusters, **{"first": first, "second": second, "normalize": False} | options)

    @classmethod
    def pclhd(cls, num_features: int, num_clusters: int, **options: Any) -> DualMemory:
        """The hybrid memory of PCLHD and RPNR: mean rows, and rows of the samples that are hardest for them."""
        rules = {"first": "mean", "second": "hardest-of-first", "combine": "margin"}
        return cls(num_features, num_clusters, **rules | options)

    @classmethod
    def dcmip(cls, num_features: int, num_clusters: int, **options: Any) -> DualMemory:
        """The hybrid memory of an unofficial code of DCMIP, for MSMT17."""
        rules = {"first": "sequential", "second": "mean", "combine": "margin"}
        return cls(num_features, num_clusters, **rules | options)

    @torch.no_grad()
    def fill(self, centroids: Tensor) -> None:
        """Fill each half with the centroids ``[C, D]``."""
        self.features.copy_(centroids.repeat(len(self.features) // self.num_clusters, 1))

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Loss of a batch; ``update`` says when the memory is updated from it.

        Args:
            inputs: ``[B, D]`` features.
            targets: ``[B]`` pseudo-labels in ``[0, C)``; -1 (noise) is ignored in the loss and in the update.

        Returns:
            The scalar loss, float32 (float64 for float64 inputs).
        """
        inputs, targets = batch_of(inputs, targets, self.features)
        targets = counted_labels("targets", targets, self.num_clusters)
        memory, momentum, rules = self.features, self.momentum, (self.first, self.second)
        normalize = normalizes(inputs, self.normalize)

        def loss_of(moving: bool, inputs: Tensor) -> Tensor:
            def move(features: Tensor) -> None:
                _move_halves(memory, features, targets, momentum, rules, normalize)

            rows = wide(inputs, self.normalize)
            similarity = memory_similarity(rows, memory, move if moving else None) / self.temperature
            halves = similarity.split(self.num_clusters, 1)
            losses = [cross_entropy(half, targets, self.label_smoothing) for half in halves]
            return checked_loss(self._combined(losses), inputs=inputs)

        return self._step(loss_of, inputs, targets=[targets])

    def _combined(self, losses: list[Tensor]) -> Tensor:
        if len(losses) == 1:
            return losses[0]
        first, second = losses
        if self.combine == "margin":
            return 0.5 * (second + torch.relu(first - MARGIN))
        return self.hard_weight * (first + (1 - self.hard_weight) * second)

    def extra_repr(self) -> str:
        """Sizes and options, for ``print(module)``."""
        return (
            f"num_features={self.features.shape[1]}, num_clusters={self.num_clusters}, "
            f"temperature={self.temperature}, momentum={self.momentum}, first={self.first!r}, second={self.second!r}, "
            f"combine={self.combine!r}, update={self.update!r}"
        )


@torch.no_grad()
def _move_halves(
    memory: Tensor, features: Tensor, targets: Tensor, momentum: float, rules: tuple[str, str | None], normalize: bool
) -> None:
    """Update both halves, each by its rule and from its old rows; a rule that reads the first half runs first."""
    first, second = rules
    features = features.to(memory.dtype)
    if second is None:
        return update_memory_from(memory, features, targets, momentum, first, normalize)
    old, other = memory.chunk(2)
    if second == "hardest-of-first":
        update_memory_from(other, features, targets, momentum, "hardest", normalize, reference=old)
    else:
        update_memory_from(other, features, targets, momentum, second, normalize)
    update_memory_from(old, features, targets, momentum, first, normalize)
    return None
