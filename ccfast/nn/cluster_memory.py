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
        momentum: share of the old row that an update keeps, in ``[0, 1]``.
        mode: of :func:`ccfast.update_memory_`: ``"sequential"``, ``"hardest"``, ``"mean"``, ``"last"`` or
            ``"replace"``.
        update: when the memory is updated. ``"forward"``: at the end of each forward call in training mode with
            gradients enabled. ``"backward"``: in each backward pass through the loss, also in eval mode, as in the
            authors' code (see :func:`ccfast.memory_similarity`); two calls before one backward then use the same
            memory.

    The options are attributes with the same names, and may be changed between calls.

    Under :func:`torch.utils.checkpoint.checkpoint` a call is one update. With ``use_reentrant=False`` it happens in the
    forward pass, and the repetition in backward changes nothing. With ``use_reentrant=True`` the forward pass has no
    gradients, and the update happens in the repetition; two calls before one backward then use the same memory.

    Attributes:
        features: buffer ``[C, D]`` float32; zeros until you fill it, with ``memory.features.copy_(centroids)`` or by
            assigning the result of :func:`ccfast.cluster_centroids`.

    Raises:
        ValueError: an argument out of range.

    Examples:
        >>> import torch, ccfast
        >>> memory = ccfast.nn.ClusterMemory(num_features=2, num_clusters=2, temperature=1.0, momentum=0.0)
        >>> memory.features = torch.eye(2)
        >>> loss = memory(torch.tensor([[0.0, 2.0]], requires_grad=True), torch.tensor([0]))
        >>> round(loss.item(), 4)  # against the memory before the update
        1.3133
        >>> memory.features.tolist()  # after the update
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
        """Mean loss of a batch; ``update`` says when the memory is updated from it.

        Args:
            inputs: ``[B, D]`` features of any norm; they are normalised.
            targets: ``[B]`` pseudo-labels in ``[0, C)``; -1 (noise) is ignored in the loss and in the update.

        Returns:
            The scalar loss, float32 (float64 for float64 inputs), against the memory before the update.
        """
        checks.choice("update", self.update, UPDATES)
        if self.update == "backward":
            return once(self, (inputs, targets), lambda _: self.loss(inputs, targets, moving=True))
        if self.training and torch.is_grad_enabled():
            return once(self, (inputs, targets), lambda move: self._loss(inputs, targets, move))
        return self._loss(inputs, targets, move=False)

    @checks.renamed(features="inputs", labels="targets")
    def _loss(self, inputs: Tensor, targets: Tensor, move: bool) -> Tensor:
        """The loss, and then the update if ``moving``."""
        loss = centroid_contrastive_loss(inputs, self.features, targets, self.temperature)
        if move:
            features = inputs.detach().to(self.features.dtype)
            update_memory_from(self.features, features, targets, self.momentum, self.mode, normalize=True)
        return loss

    @checks.renamed(features="inputs", labels="targets")
    def loss(self, inputs: Tensor, targets: Tensor, moving: bool = False) -> Tensor:
        """The loss of :meth:`forward`; its backward pass updates the memory if ``moving``."""
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
        # A non-finite value in the memory makes its column non-finite in every row.
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
