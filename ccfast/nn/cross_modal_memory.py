"""Two memories, visible and infrared: ADCA, PGM, CCLNet."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ccfast import _checks as checks
from ccfast.nn._moving import MovingModule, afterwards
from ccfast.nn.cluster_memory import ClusterMemory

CROSSES = ("visible", "infrared")


class CrossModalMemory(MovingModule):
    """One cluster memory per modality, and the terms that visible-infrared methods add to the sum of their losses.

    - ADCA (Yang et al., MM 2022): :meth:`merge` at the start of each epoch.
    - PGM (Wu and Ye, CVPR 2023): a cross term, the features of one modality against the memory of the other. The
      forward order is infrared, visible, cross, so backward runs cross, visible, infrared. As in the authors' code, the
      cross call updates the memory that it uses, and the call of the modality itself then uses the updated rows.
    - CCLNet (Chen et al., MM 2023): after both updates, matching rows are mixed (``align_scale``).

    Args:
        num_features: D.
        num_visible: clusters of the visible images.
        num_infrared: clusters of the infrared images.
        temperature: of the losses, above 0.
        momentum: share of the old row that an update keeps (CCLNet: 0.9).
        cross_weight: weight of the cross term.
        mode: of both memories, as in :class:`ccfast.nn.ClusterMemory`.
        align_scale: share of a row that is kept when it is mixed with its match (CCLNet: 0.9); 1: no matching.
        update: when the memories are updated, as in :class:`ccfast.nn.ClusterMemory`. With a cross term, ``"forward"``
            updates them in the same order.

    Attributes:
        visible, infrared: the two :class:`ccfast.nn.ClusterMemory`; fill their ``features``.

    Raises:
        ValueError: an argument out of range.

    Examples:
        >>> import torch, ccfast
        >>> memory = ccfast.nn.CrossModalMemory(num_features=2, num_visible=2, num_infrared=2, momentum=0.0)
        >>> memory.visible.features = torch.eye(2)
        >>> memory.infrared.features = torch.eye(2)
        >>> visible = torch.tensor([[0.0, 2.0]], requires_grad=True)
        >>> infrared = torch.tensor([[3.0, 0.0]], requires_grad=True)
        >>> memory(visible, infrared, torch.tensor([0]), torch.tensor([0])).backward()
        >>> memory.visible.features.tolist(), memory.infrared.features.tolist()
        ([[0.0, 1.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]])
        >>> memory.merge(torch.tensor([[0, 1], [1, 0]]), weight=0.0)  # ADCA: visible rows become infrared ones
        >>> memory.visible.features.tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """

    def __init__(
        self,
        num_features: int,
        num_visible: int,
        num_infrared: int,
        temperature: float = 0.05,
        momentum: float = 0.1,
        cross_weight: float = 0.25,
        *,
        mode: str = "sequential",
        align_scale: float = 1.0,
        update: str = "backward",
    ) -> None:
        super().__init__(update)
        self.cross_weight = checks.real("cross_weight", cross_weight, low=0)
        self.align_scale = checks.real("align_scale", align_scale, low=0, high=1)
        options = (temperature, momentum, mode, "backward")
        self.visible = ClusterMemory(num_features, num_visible, *options)
        self.infrared = ClusterMemory(num_features, num_infrared, *options)

    def forward(self, *batch: Any, **cross: Any) -> Tensor:
        """The sum of :meth:`losses`, with the weight of the cross term; the same arguments."""

        def loss_of(moving: bool, visible: Tensor, infrared: Tensor) -> Tensor:
            of_visible, of_infrared, of_cross = self.losses(visible, infrared, *batch[2:], **cross, moving=moving)
            return of_infrared + of_visible + self.cross_weight * of_cross

        targets = [value for value in (*batch[2:], cross.get("mapping")) if torch.is_tensor(value)]
        return self._step(loss_of, *batch[:2], targets=targets)

    def losses(
        self,
        visible: Tensor,
        infrared: Tensor,
        visible_targets: Tensor,
        infrared_targets: Tensor,
        *,
        cross: str | None = None,
        mapping: Tensor | None = None,
        moving: bool = True,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The three terms; the memories are updated in their backward pass.

        Args:
            visible: ``[B, D]`` features of any norm.
            infrared: ``[B', D]`` features of any norm.
            visible_targets: ``[B]`` pseudo-labels of the visible clusters; -1 (noise) is ignored.
            infrared_targets: ``[B']`` pseudo-labels of the infrared clusters.
            cross: which memory the cross term uses: ``"visible"`` (PGM's odd epochs: the infrared features against the
                visible memory) or ``"infrared"`` (even epochs); None: no cross term.
            mapping: for the cross term, ``[C]`` the cluster of that memory for each cluster of the other modality, or
                -1.
            moving: whether the memories are updated.

        Returns:
            The visible, the infrared and the cross loss, scalars; 0 without a cross term.

        Raises:
            TypeError, ValueError: as in :class:`ccfast.nn.ClusterMemory`; ``cross`` without ``mapping``, a ``mapping``
                that is too short.
        """
        if cross is not None and mapping is None:
            raise ValueError("mapping: expected the corresponding clusters for the cross term, got None")
        if moving and self.align_scale < 1:

            def align() -> None:
                self.align(visible_targets, infrared_targets)

            visible, infrared = afterwards(align, visible, infrared)
        memories = {"visible": self.visible, "infrared": self.infrared}
        of_infrared = self.infrared.loss(infrared, infrared_targets, moving)
        of_visible = self.visible.loss(visible, visible_targets, moving)
        of_cross = torch.zeros_like(of_visible)
        if cross is not None and mapping is not None:
            into = checks.choice("cross", cross, CROSSES)
            x, labels, clusters = (
                (infrared, infrared_targets, len(self.infrared.features))
                if into == "visible"
                else (visible, visible_targets, len(self.visible.features))
            )
            of_cross = memories[into].loss(x, _mapped(labels, mapping, clusters), moving)
        return of_visible, of_infrared, of_cross

    @torch.no_grad()
    def merge(self, pairs: Any, weight: float = 0.1) -> None:
        """ADCA's aggregation at the start of an epoch: visible rows are mixed with the matched infrared rows.

        The pairs are counted, and used in descending order of their count; for equal counts the first in the list comes
        first. A pair is skipped if one of its labels has been used. Then ``M_visible[v] <- weight M_visible[v] + (1 -
        weight) M_infrared[n]``. As in the authors' code, not the paper, the result is not normalised, and the infrared
        memory does not change.

        Args:
            pairs: ``[M, 2]`` integers: the visible and the infrared label of each matched pair of images; pairs with a
                -1 are dropped.
            weight: share of the visible row that is kept, in ``[0, 1]``.

        Raises:
            TypeError: a tensor of another dtype.
            ValueError: a wrong shape, a label out of range.
        """
        pairs = checks.tensor("pairs", pairs, 2, checks.INTEGER)
        weight = checks.real("weight", weight, low=0, high=1)
        if pairs.shape[1] != 2:
            raise ValueError(f"pairs: expected shape [M, 2], got {tuple(pairs.shape)}")
        for name, column, memory in (("visible", 0, self.visible), ("infrared", 1, self.infrared)):
            checks.labels_in_range(f"pairs ({name})", pairs[:, column].cpu(), memory.features.shape[0])
        counted = Counter((v, n) for v, n in pairs.tolist() if v != -1 and n != -1)  # in order of first appearance
        used_visible: dict[int, int] = {}
        for (v, n), _ in sorted(counted.items(), key=lambda item: -item[1]):
            if v not in used_visible and n not in used_visible.values():
                used_visible[v] = n
        rows = torch.tensor(list(used_visible), dtype=torch.int64, device=self.visible.features.device)
        others = torch.tensor(list(used_visible.values()), dtype=torch.int64, device=rows.device)
        mixed = weight * self.visible.features[rows] + (1 - weight) * self.infrared.features[others]
        self.visible.features[rows] = mixed

    @torch.no_grad()
    def align(self, visible_targets: Tensor, infrared_targets: Tensor) -> None:
        """CCLNet's step after both updates: mix rows of the batch with their match in the other memory.

        The match is the Hungarian assignment with the highest sum of ``M_visible @ M_infrared.T``; pairs below 0 are
        skipped. ``align_scale`` is the share of a row that is kept. As in the authors' code, not the paper, the
        infrared row is mixed with the visible row after its update. This waits for the device and runs on the CPU.
        """
        from scipy.optimize import linear_sum_assignment

        rows, others = self.visible.features, self.infrared.features
        similarity = (rows @ others.T).cpu().double()
        v, n = (torch.from_numpy(each) for each in linear_sum_assignment(similarity.numpy(), maximize=True))
        near = similarity[v, n] >= 0
        v, n = v[near].to(rows.device), n[near].to(rows.device)
        for memory, targets, ours, theirs in (
            (rows, visible_targets, v, others[n]),
            (others, infrared_targets, n, None),
        ):
            theirs = rows[v] if theirs is None else theirs
            present = torch.isin(ours, targets)
            mixed = self.align_scale * memory[ours] + (1 - self.align_scale) * theirs
            memory[ours[present]] = F.normalize(mixed, dim=1)[present]

    def extra_repr(self) -> str:
        """Options, for ``print(module)``."""
        return f"cross_weight={self.cross_weight}, align_scale={self.align_scale}, update={self.update!r}"


def _mapped(labels: Tensor, mapping: Tensor, clusters: int) -> Tensor:
    """The other modality's cluster of each label, one of ``clusters``; -1 for noise."""
    mapping = checks.tensor("mapping", mapping, 1, checks.INTEGER).to(labels.device)
    if len(mapping) < clusters:
        raise ValueError(f"mapping: expected an entry for each of the {clusters} clusters, got {len(mapping)}")
    return torch.where(labels != -1, mapping[labels.clamp_min(0)].long(), -1)
