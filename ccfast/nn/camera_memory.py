"""A cluster memory whose update uses the cameras: 3C."""

from __future__ import annotations

import torch
from torch import Tensor

from ccfast import _checks as checks
from ccfast._arguments import GROUP_MODES
from ccfast.nn._choice import first_of_group, same
from ccfast.nn._moving import MovingModule, batch_of, checked_loss, wide
from ccfast.nn._softmax import counted_labels, cross_entropies, mean_of_counted
from ccfast.ops.memory import normalizes, update_memory_from
from ccfast.ops.similarity import memory_similarity

#: The authors' names of the modes of :func:`ccfast.update_memory_`.
RULES = {
    "cm": "sequential",
    "cm_hard": "hardest",
    "cm_camera": "group_first",
    "cm_hard_camera": "group_hardest",
    "tccl_camera": "group_mean",
    "hd_camera": "group_harmonic",
}


class CameraMemory(MovingModule):
    """The cluster memory of 3C (2024). A group is the samples of one cluster from one camera; groups update its row.

    Args:
        num_features: D.
        num_clusters: C.
        temperature: of the loss, above 0.
        momentum: share of the old row that an update keeps, in ``[0, 1]``.
        mode: the samples that are mixed into a row; similarities are those with the row before the batch:

            - ``"cm"``: all samples in batch order; ``"cm_hard"``: the sample with the lowest similarity;
            - ``"cm_camera"``: the first sample of each group; ``"cm_hard_camera"``: the sample of each group with the
              lowest similarity; in both, one after the other, the cameras in order of first appearance;
            - ``"tccl_camera"``: the normalised mean of a group, of the group with the lowest similarity;
            - ``"hd_camera"``: the sample with the highest ``a b / (a + b)``, where a is its distance from the row and
              b = 1 + its similarity to the mean of its group.
        reweight: weight the clusters by ``exp`` of the entropy of their cameras in the batch, with a mean weight of 1.
            As in the authors' code, not the paper, the entropy is in bits.
        normalize: divide the inputs by their norm; otherwise they must have unit norm.
        update: when the memory is updated, as in :class:`ccfast.nn.ClusterMemory`.

    Attributes:
        features: buffer ``[C, D]`` float32; zeros until filled.

    Raises:
        ValueError: an argument out of range.

    Examples:
        >>> import torch, ccfast
        >>> memory = ccfast.nn.CameraMemory(2, 2, momentum=0.0, mode="tccl_camera")
        >>> memory.features = torch.eye(2)
        >>> inputs = torch.tensor([[1.0, 0.0], [0.0, 1.0]], requires_grad=True)
        >>> memory(inputs, targets=torch.tensor([0, 0]), cameras=torch.tensor([3, 7])).backward()
        >>> memory.features.tolist()  # the sample of camera 7 was less similar to row 0
        [[0.0, 1.0], [0.0, 1.0]]
    """

    features: Tensor

    def __init__(
        self,
        num_features: int,
        num_clusters: int,
        temperature: float = 0.05,
        momentum: float = 0.1,
        mode: str = "hd_camera",
        reweight: bool = False,
        *,
        normalize: bool = True,
        update: str = "backward",
    ) -> None:
        super().__init__(update)
        num_features = checks.integer("num_features", num_features, low=1)
        num_clusters = checks.integer("num_clusters", num_clusters, low=1)
        self.temperature = checks.real("temperature", temperature, low=0, ends="(]")
        self.momentum = checks.real("momentum", momentum, low=0, high=1)
        self.mode = checks.choice("mode", mode, tuple(RULES))
        self.reweight = bool(reweight)
        self.normalize = bool(normalize)
        self.register_buffer("features", torch.zeros(num_clusters, num_features, dtype=torch.float32))

    def forward(self, inputs: Tensor, targets: Tensor, cameras: Tensor) -> Tensor:
        """Mean loss of a batch; ``update`` says when the memory is updated from it.

        Args:
            inputs: ``[B, D]`` features.
            targets: ``[B]`` pseudo-labels in ``[0, C)``; -1 (noise) is ignored in the loss and in the update.
            cameras: ``[B]`` integers.

        Returns:
            The scalar loss, float32 (float64 for float64 inputs).
        """
        inputs, targets = batch_of(inputs, targets, self.features)
        cameras = checks.vector_of_integers("cameras", cameras, inputs.shape[0], "inputs")
        checks.same_device(inputs=inputs, cameras=cameras)
        targets = counted_labels("targets", targets, self.features.shape[0])
        memory, momentum, rule = self.features, self.momentum, RULES[self.mode]
        normalize = normalizes(inputs, self.normalize)

        def loss_of(moving: bool, inputs: Tensor) -> Tensor:
            def move(features: Tensor) -> None:
                groups = cameras if rule in GROUP_MODES else None
                features = features.to(memory.dtype)
                update_memory_from(memory, features, targets, momentum, rule, normalize, groups=groups)

            rows = wide(inputs, self.normalize)
            logits = memory_similarity(rows, memory, move if moving else None) / self.temperature
            losses = cross_entropies(logits, targets)
            if self.reweight:
                losses = losses * entropy_weights(targets, cameras).to(losses.dtype)
            return checked_loss(mean_of_counted(losses, targets != -1), inputs=inputs)

        return self._step(loss_of, inputs, targets=[targets, cameras])

    def extra_repr(self) -> str:
        """Sizes and options, for ``print(module)``."""
        clusters, features = self.features.shape
        return (
            f"num_features={features}, num_clusters={clusters}, temperature={self.temperature}, "
            f"momentum={self.momentum}, mode={self.mode!r}, reweight={self.reweight}, update={self.update!r}"
        )


def entropy_weights(targets: Tensor, cameras: Tensor) -> Tensor:
    """``[B]`` float64: weights of the samples' clusters, from the entropy of their cameras; 0 for noise."""
    cluster, group = same(targets), same(targets, cameras)
    size = cluster.sum(1).clamp_min(1).double()
    # The entropy of a cluster is the mean over its samples of -log2 of their group's share.
    entropy = -(cluster.double() @ (group.sum(1).clamp_min(1) / size).log2()) / size
    weight = torch.where(targets != -1, entropy.exp(), 0)
    one_each = first_of_group(cluster)
    total = torch.where(one_each, weight, 0).sum()
    return weight * one_each.sum() / total.clamp_min(1)
