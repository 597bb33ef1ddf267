"""A memory with several samples per cluster: HHCL's second version, and the instance bank of DCMIP and PCLHD."""

from __future__ import annotations

import torch
from torch import Tensor

from ccfast import _checks as checks
from ccfast.nn._choice import place_in_group, same
from ccfast.nn._moving import MovingModule, batch_of, checked_loss, wide
from ccfast.nn._softmax import counted_labels, cross_entropy
from ccfast.ops.memory import normalizes, update_memory_from
from ccfast.ops.similarity import memory_similarity

#: If a cluster has at least this many samples, its rows are drawn without replacement.
DRAWN_ONCE = 16


class InstanceMemory(MovingModule):
    """K sample rows per cluster; the loss uses the hardest of them.

    The loss is ``CE(h / T)``, where h is the **lowest** similarity to the rows of the sample's own cluster, and the
    **highest** similarity to those of each other cluster. With ``centroid`` (HHCL, ``CMhybrid_v2``) a cluster has one
    more row, its centroid, with a separate loss: ``w CE(centroids) + (1 - w) CE(h / T)``.

    Update of the rows (Hu et al. 2021; DCMIP and PCLHD, whose code draws samples):

    - without ``centroid``: for each cluster in the batch, K of its samples are drawn and replace its rows: without
      replacement if the cluster has at least 16 and at least K samples, otherwise with replacement;
    - with ``centroid``: the samples of a cluster replace its rows in batch order (if there are fewer than K, only the
      first rows); then the centroid is updated with the mean of the samples.

    Args:
        num_features: D.
        num_clusters: C.
        num_instances: K.
        temperature: of the loss, above 0.
        centroid: also keep one centroid per cluster.
        momentum: share of the old centroid that an update keeps, in ``[0, 1]``.
        hard_weight: w.
        label_smoothing: e of :func:`ccfast.nn.smoothed_cross_entropy` in each cross-entropy.
        normalize: divide the inputs by their norm; otherwise they must have unit norm.
        update: when the memory is updated, as in :class:`ccfast.nn.ClusterMemory`.

    Attributes:
        features: buffer ``[K C, D]`` float32 (``[(K + 1) C, D]`` with ``centroid``); row ``c + C k`` is row k of
            cluster c; with ``centroid``, k = 0 is the centroid. Zeros until you fill it.

    Raises:
        ValueError: an argument out of range.

    Examples:
        >>> import torch, ccfast
        >>> memory = ccfast.nn.InstanceMemory(num_features=2, num_clusters=2, num_instances=2)
        >>> memory.features = torch.eye(2).repeat(2, 1)
        >>> inputs = torch.tensor([[0.0, 1.0], [1.0, 0.0]], requires_grad=True)
        >>> memory(inputs, torch.tensor([0, 0]), draws=torch.tensor([[0, 1]])).backward()
        >>> memory.features[0::2].tolist()  # the two rows of cluster 0
        [[0.0, 1.0], [1.0, 0.0]]
    """

    features: Tensor

    def __init__(
        self,
        num_features: int,
        num_clusters: int,
        num_instances: int,
        temperature: float = 0.05,
        *,
        centroid: bool = False,
        momentum: float = 0.1,
        hard_weight: float = 0.5,
        label_smoothing: float = 0.0,
        normalize: bool = True,
        update: str = "backward",
    ) -> None:
        super().__init__(update)
        num_features = checks.integer("num_features", num_features, low=1)
        self.num_clusters = checks.integer("num_clusters", num_clusters, low=1)
        self.num_instances = checks.integer("num_instances", num_instances, low=1)
        self.temperature = checks.real("temperature", temperature, low=0, ends="(]")
        self.centroid = bool(centroid)
        self.momentum = checks.real("momentum", momentum, low=0, high=1)
        self.hard_weight = checks.real("hard_weight", hard_weight, low=0, high=1)
        self.label_smoothing = checks.real("label_smoothing", label_smoothing, low=0, high=1)
        self.normalize = bool(normalize)
        rows = (self.num_instances + self.centroid) * self.num_clusters
        self.register_buffer("features", torch.zeros(rows, num_features, dtype=torch.float32))

    def forward(self, inputs: Tensor, targets: Tensor, draws: Tensor | None = None) -> Tensor:
        """Loss of a batch; ``update`` says when the memory is updated from it.

        Args:
            inputs: ``[B, D]`` features.
            targets: ``[B]`` pseudo-labels in ``[0, C)``; -1 (noise) is ignored in the loss and in the update. With
                ``centroid`` at most K samples per cluster.
            draws: ``[P, K]`` integers: for each of the P clusters of the batch, in order of first appearance, the
                samples that replace its rows, as positions among its samples in batch order; None: they are drawn with
                torch's CPU generator. Not used with ``centroid``.

        Returns:
            The scalar loss, float32 (float64 for float64 inputs).

        Raises:
            ValueError: as above; ``draws`` with a wrong shape or out of range.
        """
        inputs, targets = batch_of(inputs, targets, self.features)
        targets = counted_labels("targets", targets, self.num_clusters)
        samples, rows = self._replaced(targets, draws)
        normalize = normalizes(inputs, self.normalize)

        def loss_of(moving: bool, inputs: Tensor) -> Tensor:
            memory, momentum = self.features, self.momentum

            def move(features: Tensor) -> None:
                features = features.to(memory.dtype)
                memory[rows] = features[samples]
                if self.centroid:
                    centroids = memory[: self.num_clusters]
                    update_memory_from(centroids, features, targets, momentum, "mean", normalize)

            similarity = memory_similarity(wide(inputs, self.normalize), memory, move if moving else None)
            return checked_loss(self._loss(similarity / self.temperature, targets), inputs=inputs)

        return self._step(loss_of, inputs, targets=[targets, samples, rows])

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        by_row = logits.unflatten(1, (-1, self.num_clusters))  # [B, K or K + 1, C]
        rows = by_row[:, 1:] if self.centroid else by_row
        own = targets[:, None] == torch.arange(self.num_clusters, device=targets.device)
        hardest = torch.where(own, rows.min(1).values, rows.max(1).values)
        loss = cross_entropy(hardest, targets, self.label_smoothing)
        if not self.centroid:
            return loss
        of_centroids = cross_entropy(by_row[:, 0], targets, self.label_smoothing)
        return self.hard_weight * of_centroids + (1 - self.hard_weight) * loss

    def _replaced(self, targets: Tensor, draws: Tensor | None) -> tuple[Tensor, Tensor]:
        """Which samples of the batch replace which rows."""
        if self.centroid:
            return self._in_order(targets)
        labels = targets.tolist()
        clusters = list(dict.fromkeys(label for label in labels if label != -1))
        members = {c: [i for i, label in enumerate(labels) if label == c] for c in clusters}
        if draws is None:
            places = [self._draw(len(members[c])) for c in clusters]
        else:
            places = _checked_draws(draws, [len(members[c]) for c in clusters], self.num_instances)
        samples = [members[c][place] for c, drawn in zip(clusters, places, strict=True) for place in drawn]
        rows = [c + self.num_clusters * k for c in clusters for k in range(self.num_instances)]
        return torch.tensor(samples, device=targets.device).long(), torch.tensor(rows, device=targets.device).long()

    def _draw(self, members: int) -> list[int]:
        if members >= max(DRAWN_ONCE, self.num_instances):
            return torch.randperm(members)[: self.num_instances].tolist()
        return torch.randint(members, (self.num_instances,)).tolist()

    def _in_order(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        place = place_in_group(same(targets))
        if (place >= self.num_instances).any():
            cluster = int(targets[place >= self.num_instances][0])
            raise ValueError(
                f"targets: expected at most {self.num_instances} samples of a cluster (num_instances), got "
                f"{int((targets == cluster).sum())} of cluster {cluster}"
            )
        samples = (targets != -1).nonzero().squeeze(1)
        return samples, targets[samples] + self.num_clusters * (place[samples] + 1)

    def extra_repr(self) -> str:
        """Sizes and options, for ``print(module)``."""
        return (
            f"num_features={self.features.shape[1]}, num_clusters={self.num_clusters}, "
            f"num_instances={self.num_instances}, temperature={self.temperature}, centroid={self.centroid}, "
            f"update={self.update!r}"
        )


def _checked_draws(draws: Tensor, members: list[int], num_instances: int) -> list[list[int]]:
    draws = checks.tensor("draws", draws, 2, checks.INTEGER)
    if tuple(draws.shape) != (len(members), num_instances):
        raise ValueError(
            f"draws: expected shape {(len(members), num_instances)}, one row per cluster of the batch, got "
            f"{tuple(draws.shape)}"
        )
    places = draws.tolist()
    for cluster, (drawn, count) in enumerate(zip(places, members, strict=True)):
        if not all(0 <= place < count for place in drawn):
            raise ValueError(f"draws: expected positions in [0, {count}) in row {cluster}, got {drawn}")
    return places
