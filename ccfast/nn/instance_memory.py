"""A memory of several samples for each cluster: HHCL's second version, and the instance bank of DCMIP and PCLHD."""

from __future__ import annotations

import torch
from torch import Tensor

from ccfast import _checks as checks
from ccfast.nn._choice import place_in_group, same
from ccfast.nn._moving import MovingModule, batch_of, checked_loss, wide
from ccfast.nn._softmax import counted_labels, cross_entropy
from ccfast.ops.memory import update_memory_from
from ccfast.ops.similarity import memory_similarity

#: From so many samples on, a cluster's rows are drawn without replacement.
DRAWN_ONCE = 16


class InstanceMemory(MovingModule):
    """K rows of samples for each cluster; the loss takes the hardest of them.

    ``CE(h / T)``, where h is the **lowest** similarity to the rows of the own cluster and the **highest** one to those
    of each other cluster. With ``centroid`` (HHCL, ``CMhybrid_v2``) a cluster has one row more, its centroid, with a
    loss of its own: ``w CE(centroids) + (1 - w) CE(h / T)``.

    The rows move so (Hu et al. 2021; DCMIP and PCLHD, whose code draws):

    - without ``centroid``: for each cluster in the batch, K of its samples are drawn and replace its rows, without
      replacement if the cluster has 16 samples or more (and no fewer than K), with replacement otherwise;
    - with ``centroid``: the samples of a cluster replace its rows in batch order, those of a cluster with fewer than K
      only the first ones; then the centroid moves by the mean of the samples.

    Args:
        num_features: D.
        num_clusters: C.
        num_instances: K.
        temperature: of the loss, above 0.
        centroid: keep a centroid for each cluster too.
        momentum: share of the old centroid that stays, in ``[0, 1]``.
        hard_weight: w.
        label_smoothing: e of :func:`ccfast.nn.smoothed_cross_entropy` in each cross-entropy.
        normalize: divide the inputs by their norm; otherwise they have to be of unit norm.
        update: when the memory moves, as for :class:`ccfast.nn.ClusterMemory`.

    Attributes:
        features: buffer ``[K C, D]`` float32 (``[(K + 1) C, D]`` with ``centroid``); row ``c + C k`` is row k of
            cluster c, and k = 0 is the centroid where there is one. Zeros until filled.

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
        """Loss of a batch; the memory is updated from the batch as ``update`` says.

        Args:
            inputs: ``[B, D]`` features.
            targets: ``[B]`` pseudo-labels in ``[0, C)``; -1 (noise) counts neither in the loss nor in the update. With
                ``centroid`` at most K samples for each cluster.
            draws: ``[P, K]`` integers, for each of the P clusters of the batch in order of first appearance the places
                of the samples that replace its rows, counted among its samples in batch order; None: they are drawn
                here, by torch's generator of the CPU. Not used with ``centroid``.

        Returns:
            The scalar loss, float32 (float64 for float64 inputs).

        Raises:
            ValueError: as above; ``draws`` of another shape or out of range.
        """
        inputs, targets = batch_of(inputs, targets, self.features)
        targets = counted_labels("targets", targets, self.num_clusters)
        samples, rows = self._replaced(targets, draws)

        def loss_of(moving: bool, inputs: Tensor) -> Tensor:
            memory, momentum = self.features, self.momentum

            def move(features: Tensor) -> None:
                features = features.to(memory.dtype)
                memory[rows] = features[samples]
                if self.centroid:
                    centroids = memory[: self.num_clusters]
                    update_memory_from(centroids, features, targets, momentum, "mean", self.normalize)

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
            f"draws: expected shape {(len(members), num_instances)}, a row for each cluster of the batch, got "
            f"{tuple(draws.shape)}"
        )
    places = draws.tolist()
    for cluster, (drawn, count) in enumerate(zip(places, members, strict=True)):
        if not all(0 <= place < count for place in drawn):
            raise ValueError(f"draws: expected places in [0, {count}) in row {cluster}, got {drawn}")
    return places
