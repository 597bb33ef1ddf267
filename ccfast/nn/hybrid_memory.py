"""An instance memory with a loss over clusters: SpCL and CACL."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ccfast import _checks as checks
from ccfast.nn._moving import MovingModule, batch_of, checked_loss, wide
from ccfast.nn._reliability import reliable_labels
from ccfast.nn._softmax import counted_labels, mean_of_counted
from ccfast.ops.memory import normalizes, update_memory_from
from ccfast.ops.similarity import memory_similarity, segment_mean

EPSILON = 1e-6


class HybridMemory(MovingModule):
    """One row per image, and a loss against the means of the clusters (SpCL, Ge et al., NeurIPS 2020, section 3.1).

    Let p be the mean similarity to the rows of each label, divided by the temperature, and ``q = exp(p) / (sum exp(p) +
    1e-6)``. The loss is the mean of ``-log(q_y + 1e-6)``, times ``(1 - q_y) ** focal`` (CACL, Li et al. 2021: 4). As in
    the authors' code, not the paper, no maximum is subtracted, so a temperature of 0.01 overflows in float32, and the
    gradient goes through both 1e-6.

    Args:
        num_features: D.
        num_rows: N, the number of images; for domain adaptation the classes of the source domain come first.
        temperature: above 0.
        momentum: share of the old row that an update keeps, in ``[0, 1]``.
        focal: exponent of the focal weight; 0: none.
        normalize: divide the inputs by their norm; otherwise they must have unit norm, like the output of the authors'
            encoder.
        update: when the rows are updated, as in :class:`ccfast.nn.ClusterMemory`. Two calls before one backward, as for
            domain adaptation, need ``"backward"``.

    Attributes:
        features: buffer ``[N, D]`` float32; zeros until filled.
        labels: buffer ``[N]`` int64, the label of each row. Each un-clustered row has a separate label; rows with the
            label -1 are in no cluster. 0 to N - 1 until you fill it, for example with :meth:`relabel`.
        threshold: buffer, scalar float32: SpCL's threshold of independence; NaN until :meth:`relabel` sets it.

    Raises:
        ValueError: an argument out of range.

    Examples:
        >>> import torch, ccfast
        >>> memory = ccfast.nn.HybridMemory(num_features=2, num_rows=3, momentum=0.0)
        >>> memory.features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> memory.labels = torch.tensor([0, 0, 1])
        >>> memory(torch.tensor([[0.0, 1.0]], requires_grad=True), rows=torch.tensor([1])).backward()
        >>> memory.features.tolist()  # the row of the image has been updated
        [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
        >>> clusters = torch.tensor([0, 0, 1])
        >>> memory.relabel(clusters, tight=clusters, loose=clusters).tolist()
        [0, 0, 1]
    """

    features: Tensor
    labels: Tensor
    threshold: Tensor

    def __init__(
        self,
        num_features: int,
        num_rows: int,
        temperature: float = 0.05,
        momentum: float = 0.2,
        focal: float = 0,
        *,
        normalize: bool = False,
        update: str = "backward",
    ) -> None:
        super().__init__(update)
        num_features = checks.integer("num_features", num_features, low=1)
        num_rows = checks.integer("num_rows", num_rows, low=1)
        self.temperature = checks.real("temperature", temperature, low=0, ends="(]")
        self.momentum = checks.real("momentum", momentum, low=0, high=1)
        self.focal = checks.real("focal", focal, low=0)
        self.normalize = bool(normalize)
        self.register_buffer("features", torch.zeros(num_rows, num_features, dtype=torch.float32))
        self.register_buffer("labels", torch.arange(num_rows))
        self.register_buffer("threshold", torch.tensor(torch.nan, dtype=torch.float32))
        self._counted: tuple[Tensor | None, int, int] = (None, 0, 0)

    def forward(self, inputs: Tensor, rows: Tensor, other: Tensor | None = None) -> Tensor:
        """Loss of a batch; ``update`` says when its rows are updated.

        Args:
            inputs: ``[B, D]`` features.
            rows: ``[B]`` the row of each input in ``[0, N)``; -1, and a row with the label -1, are ignored.
            other: ``[B, D]`` output of the other network's predictor, of any norm (CACL's second network). Adds the
                negative cosines to the centroid of the row's label before the update, and to the input; their
                gradient goes only to ``other``.

        Returns:
            The scalar loss, float32 (float64 for float64 inputs).
        """
        inputs, rows = batch_of(inputs, rows, self.features, "rows")
        rows = counted_labels("rows", rows, self.features.shape[0])
        labels, memory, momentum = self.labels, self.features, self.momentum
        targets = torch.where(rows != -1, labels[rows.clamp_min(0)], -1)
        moved, segments = torch.where(targets != -1, rows, -1), self._segments()
        normalize = normalizes(inputs, self.normalize)

        def loss_of(moving: bool, inputs: Tensor, *others: Tensor) -> Tensor:
            def move(features: Tensor) -> None:
                update_memory_from(memory, features.to(memory.dtype), moved, momentum, "sequential", normalize)

            x = wide(inputs, self.normalize)
            similarity = memory_similarity(x, memory, move if moving else None)
            means, present = segment_mean(similarity / self.temperature, labels, segments)
            loss = mean_of_counted(self._losses(means, present, targets), targets != -1)
            for each in others:
                loss = loss + _agreement(wide(each, False), x.detach(), self._centroids(targets), targets)
            return checked_loss(loss, inputs=inputs)

        return self._step(loss_of, inputs, *([] if other is None else [other]), targets=[rows])

    def _losses(self, means: Tensor, present: Tensor, targets: Tensor) -> Tensor:
        terms = torch.where(present, means.exp(), 0)
        q = terms.gather(1, targets.clamp_min(0)[:, None]).squeeze(1) / (terms.sum(1) + EPSILON)
        losses = -torch.log(q + EPSILON)
        return losses * (1 - q) ** self.focal if self.focal else losses

    def _centroids(self, targets: Tensor) -> Tensor:
        """``[B, D]``: the mean of the rows of each target."""
        member = (self.labels == targets[:, None]).to(self.features.dtype)
        return member @ self.features / member.sum(1, keepdim=True).clamp_min(1)

    def _segments(self) -> int:
        """The number of labels; counted only when they have changed, because on a GPU this waits for the device."""
        labels, version, count = self._counted
        if labels is not self.labels or version != self.labels._version:
            count = max(1, int(self.labels.max()) + 1)
            self._counted = (self.labels, self.labels._version, count)
        return count

    @torch.no_grad()
    def relabel(self, labels: Any, tight: Any, loose: Any) -> Tensor:
        """New labels of an epoch by SpCL's reliability criterion (section 3.2).

        Args:
            labels: ``[N]`` clustering of the rows, -1 for noise.
            tight: the same at a smaller radius (DBSCAN at eps - 0.02).
            loose: the same at a larger radius (eps + 0.02).

        Returns:
            ``[N]`` the new ``labels``. An image keeps its label if its cluster is independent (the criterion's
            threshold comes from the first call) and the image itself is compact; each other image gets a separate
            label. Some labels may have no member.

        Raises:
            TypeError: a tensor of another dtype or layout.
            ValueError: a wrong length; no cluster with more than one image in the first call.
        """
        threshold = None if torch.isnan(self.threshold) else float(self.threshold)
        found, threshold = reliable_labels(labels, tight, loose, threshold)
        self.labels = found.to(self.labels.device)
        self.threshold.fill_(threshold)
        return self.labels

    def extra_repr(self) -> str:
        """Sizes and options, for ``print(module)``."""
        rows, features = self.features.shape
        return (
            f"num_features={features}, num_rows={rows}, temperature={self.temperature}, momentum={self.momentum}, "
            f"focal={self.focal}, update={self.update!r}"
        )


def _agreement(other: Tensor, inputs: Tensor, centroids: Tensor, targets: Tensor) -> Tensor:
    """CACL's two terms of the second network."""
    cosines = F.cosine_similarity(centroids.to(other.dtype), other) + F.cosine_similarity(inputs.to(other.dtype), other)
    return -mean_of_counted(cosines, targets != -1)
