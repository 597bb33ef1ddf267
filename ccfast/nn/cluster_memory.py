"""Cluster memory as a module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ccfast import _checks as checks
from ccfast._arguments import MODES
from ccfast.nn._moving import UPDATES, wide
from ccfast.nn._recomputation import once
from ccfast.nn._softmax import counted_labels, cross_entropy
from ccfast.ops.contrastive import centroid_contrastive_loss
from ccfast.ops.memory import update_memory_from
from ccfast.ops.similarity import memory_similarity


class ClusterMemory(nn.Module):
    """One normalised feature per cluster: the loss against all of them, and a momentum update (Cluster Contrast).

    Args:
        num_features: D.
        num_clusters: C.
        temperature: of the loss, above 0.
        momentum: share of the old row that stays in an update, in ``[0, 1]``.
        mode: of :func:`ccfast.update_memory_`: ``"sequential"``, ``"hardest"``, ``"mean"``, ``"last"`` or
            ``"replace"``.
        update: when the memory moves. ``"forward"``: at the end of each forward call in training mode with gradients
            enabled. ``"backward"``: in each backward pass through the loss, in eval mode too, as the authors' code
            does (see :func:`ccfast.memory_similarity`); two calls before one backward then see the same memory.

    The options are attributes of the same names, and may be changed between calls.

    Under :func:`torch.utils.checkpoint.checkpoint` a call is one update. With ``use_reentrant=False`` it happens in the
    forward pass, and the repetition in backward changes nothing; with ``use_reentrant=True``, where the forward pass
    is without gradients, it happens in the repetition, so that two calls before one backward see the same memory.

    Attributes:
        features: buffer ``[C, D]`` float32; zeros until filled, as by ``memory.features.copy_(centroids)`` or by
            assigning the result of :func:`ccfast.cluster_centroids`.

    Raises:
        ValueError: an argument out of range.

    Examples:
        >>> import torch, ccfast
        >>> memory = ccfast.nn.ClusterMemory(num_features=2, num_clusters=2, temperature=1.0, momentum=0.0)
        >>> memory.features = torch.eye(2)
        >>> loss = memory(torch.tensor([[0.0, 2.0]], requires_grad=True), torch.tensor([0]))
        >>> round(loss.item(), 4)  # against the memory as it was
        1.3133
        >>> memory.features.tolist()  # which then moved
        [[0.0, 1.0], [0.0, 1.0]]
    """

    features: Tensor

    def __init__(
        self,
        num_features: int,
        num_clusters: int,
        temperature: float = 0.05,
        momentum: float = 0.1,
        mode: str = "sequential",
        update: str = "forward",
    ) -> None:
        super().__init__()
        num_features = checks.integer("num_features", num_features, low=1)
        num_clusters = checks.integer("num_clusters", num_clusters, low=1)
        self.temperature = checks.real("temperature", temperature, low=0, ends="(]")
        self.momentum = checks.real("momentum", momentum, low=0, high=1)
        self.mode = checks.choice("mode", mode, MODES)
        self.update = checks.choice("update", update, UPDATES)
        self.register_buffer("features", torch.zeros(num_clusters, num_features, dtype=torch.float32))

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of a batch; the memory is updated from the batch as ``update`` says.

        Args:
            inputs: ``[B, D]`` features, of any norm: they are normalised here.
            targets: ``[B]`` pseudo-labels in ``[0, C)``; -1 (noise) counts neither in the loss nor in the update.

        Returns:
            The scalar loss, float32 (float64 for float64 inputs), taken against the memory as it was before the update.
        """
        checks.choice("update", self.update, UPDATES)
        if self.update == "backward":
            return once(self, (inputs, targets), lambda _: self.loss(inputs, targets, moving=True))
        if self.training and torch.is_grad_enabled():
            return once(self, (inputs, targets), lambda move: self._loss(inputs, targets, move))
        return self._loss(inputs, targets, move=False)

    @checks.renamed(features="inputs", labels="targets")
    def _loss(self, inputs: Tensor, targets: Tensor, move: bool) -> Tensor:
        """The loss, and then the update where the memory is to move."""
        loss = centroid_contrastive_loss(inputs, self.features, targets, self.temperature)
        if move:
            features = inputs.detach().to(self.features.dtype)
            update_memory_from(self.features, features, targets, self.momentum, self.mode, normalize=True)
        return loss

    @checks.renamed(features="inputs", labels="targets")
    def loss(self, inputs: Tensor, targets: Tensor, moving: bool = False) -> Tensor:
        """The loss of :meth:`forward`; its backward pass moves the memory where ``moving``."""
        inputs = checks.matrix("inputs", inputs, checks.ANY_FLOAT)
        targets = checks.vector_of_integers("targets", targets, inputs.shape[0], "inputs", inputs.device)
        targets = counted_labels("targets", targets, self.features.shape[0])
        temperature = checks.real("temperature", self.temperature, low=0, ends="(]")
        momentum = checks.real("momentum", self.momentum, low=0, high=1)
        mode, memory = checks.choice("mode", self.mode, MODES), self.features

        @checks.renamed(features="inputs", labels="targets")
        def move(features: Tensor) -> None:
            update_memory_from(memory, features.to(memory.dtype), targets, momentum, mode, normalize=True)

        with torch.autocast(inputs.device.type, enabled=False):
            similarities = memory_similarity(wide(inputs, normalize=True), memory, move if moving else None)
            loss = cross_entropy(similarities / temperature, targets)
        # A value of the memory that is not finite shows in its column of every row.
        if loss.device.type == "cpu" and not torch.isfinite(similarities.detach()[0].sum() + loss.detach()):
            checks.finite_rows("inputs", inputs.detach())
            checks.finite_rows("memory", memory.detach())
        return loss

    def extra_repr(self) -> str:
        """Sizes and options, for ``print(module)``."""
        clusters, features = self.features.shape
        return (
            f"num_features={features}, num_clusters={clusters}, temperature={self.temperature}, "
            f"momentum={self.momentum}, mode={self.mode!r}, update={self.update!r}"
        )
