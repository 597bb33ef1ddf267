"""Contrast with a queue of keys: MoCo, and PCL's prototypes on top of it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ccfast import _checks as checks
from ccfast.nn._moving import MovingModule, checked_loss, wide
from ccfast.nn._softmax import counted_labels
from ccfast.ops.queue import enqueue_
from ccfast.ops.similarity import memory_similarity


class QueueContrast(MovingModule):
    """InfoNCE of a query, its key and a queue of older keys (MoCo v1 and v2; He et al. 2020, Chen et al. 2020).

    The loss is ``CE([q . k, q @ queue.T] / temperature, 0)``, averaged over the batch; no gradient goes to the keys. It
    uses the queue from before the batch; then the batch's keys are put into the queue.

    Args:
        num_features: D.
        size: K, rows of the queue; a multiple of the batch size.
        temperature: above 0 (v1: 0.07, v2: 0.2).
        update: when keys are put into the queue: ``"forward"``, at the end of a forward call in training mode with
            gradients enabled, as in the authors' code; or ``"backward"``, in each backward pass.

    Attributes:
        queue: buffer ``[K, D]`` float32; initially unit rows in random directions.
        pointer: buffer ``[1]`` int64, the position of the next key.

    Raises:
        ValueError: an argument out of range.

    Examples:
        >>> import torch, ccfast
        >>> contrast = ccfast.nn.QueueContrast(num_features=2, size=4)
        >>> queries = torch.tensor([[1.0, 0.0], [0.0, 1.0]], requires_grad=True)
        >>> contrast(queries, keys=torch.tensor([[2.0, 0.0], [0.0, 2.0]])).backward()
        >>> contrast.queue[:2].tolist(), contrast.pointer.item()
        ([[1.0, 0.0], [0.0, 1.0]], 2)
    """

    queue: Tensor
    pointer: Tensor

    def __init__(
        self, num_features: int, size: int = 65536, temperature: float = 0.07, *, update: str = "forward"
    ) -> None:
        super().__init__(update)
        num_features = checks.integer("num_features", num_features, low=1)
        size = checks.integer("size", size, low=1)
        self.temperature = checks.real("temperature", temperature, low=0, ends="(]")
        self.register_buffer("queue", F.normalize(torch.randn(size, num_features, dtype=torch.float32), dim=1))
        self.register_buffer("pointer", torch.zeros(1, dtype=torch.int64))

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Mean loss of a batch; ``update`` says when its keys are put into the queue.

        Args:
            queries: ``[B, D]`` features of any norm.
            keys: ``[B, D]`` features of the key encoder, of any norm.

        Returns:
            The scalar loss, float32 (float64 for float64 queries).

        Raises:
            ValueError: an empty input, wrong shapes; a queue whose size is not a multiple of B.
        """
        queries, keys = self._checked(queries, keys)
        return self._step(lambda moving, queries: self._loss(queries, keys, moving), queries, targets=[keys])

    def _checked(self, queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        queries = checks.matrix("queries", queries, checks.ANY_FLOAT)
        keys = checks.matrix("keys", keys, checks.ANY_FLOAT)
        checks.same_shape(queries=queries, keys=keys)
        checks.same_columns(queries=queries, queue=self.queue)
        checks.same_device(queries=queries, keys=keys, queue=self.queue)
        if self.queue.shape[0] % queries.shape[0]:
            raise ValueError(
                f"queries: expected a batch size that divides the size of the queue, {self.queue.shape[0]}, "
                f"got {queries.shape[0]}"
            )
        return queries, keys.detach()

    def _loss(self, queries: Tensor, keys: Tensor, moving: bool) -> Tensor:
        queue, pointer, k = self.queue, self.pointer, wide(keys, True)
        q = wide(queries, True)

        def move(_: Tensor) -> None:
            enqueue_(queue, pointer, k.to(queue.dtype))

        older = memory_similarity(q, queue, move if moving else None)
        logits = torch.cat([(q * k.to(q.dtype)).sum(1, keepdim=True), older], 1) / self.temperature
        return checked_loss(-logits.log_softmax(1)[:, 0].mean(), queries=queries, keys=keys)

    def extra_repr(self) -> str:
        """Sizes and options, for ``print(module)``."""
        size, features = self.queue.shape
        return f"num_features={features}, size={size}, temperature={self.temperature}, update={self.update!r}"


@torch.no_grad()
def update_average_(average: nn.Module, module: nn.Module, momentum: float = 0.999) -> None:
    """The update of MoCo's key encoder: ``p <- m p + (1 - m) p'`` for every parameter, not for buffers.

    Args:
        average: the module with the averages, changed in place.
        module: a module with the same parameters.
        momentum: m, in ``[0, 1]``, the share that is kept.

    Raises:
        ValueError: modules with different parameters; a momentum out of range.

    Examples:
        >>> import torch, ccfast
        >>> encoder, keys = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
        >>> encoder.weight.data.fill_(4.0), keys.weight.data.fill_(0.0)
        (tensor([[4.]]), tensor([[0.]]))
        >>> ccfast.nn.update_average_(keys, encoder, momentum=0.75)
        >>> keys.weight.item()
        1.0
    """
    momentum = checks.real("momentum", momentum, low=0, high=1)
    ours: list[Tensor] = list(average.parameters())
    theirs: list[Tensor] = list(module.parameters())
    if [p.shape for p in ours] != [p.shape for p in theirs]:
        raise ValueError("average, module: expected parameters of the same shapes, got different ones")
    torch._foreach_mul_(ours, momentum)
    torch._foreach_add_(ours, theirs, alpha=1 - momentum)


class PrototypeContrast(QueueContrast):
    """MoCo's loss, and a loss against prototypes at several granularities (PCL; Li et al., ICLR 2021, ProtoNCE).

    For each granularity the columns are the prototypes of the batch's samples, in batch order, and then other
    prototypes. The logit of a column is ``q . centroid / density``; the target of row b is column b. The mean over the
    granularities is added to MoCo's loss. As in the authors' code, not the paper, if two samples have the same
    prototype, it has two columns, and each is a negative of the other sample.

    Args:
        num_features: D.
        size: rows of the queue, and the number of other prototypes that are drawn (at most all of them).
        temperature: of MoCo's loss; also the mean density of a granularity.
        update: as in :class:`QueueContrast`.

    Attributes:
        queue, pointer: as for :class:`QueueContrast`.
        assignments, centroids, densities: lists with one tensor per granularity, empty until :meth:`fill`: ``[N]`` the
            cluster of each image, ``[C, D]`` unit rows, ``[C]``. They are computed again in each epoch, and are not in
            the state dict.

    Examples:
        >>> import torch, ccfast
        >>> contrast = ccfast.nn.PrototypeContrast(num_features=2, size=4)
        >>> contrast.fill([torch.tensor([0, 1])], [torch.eye(2)], [torch.tensor([0.2, 0.2])])
        >>> rows = torch.eye(2)
        >>> indexes = torch.tensor([0, 1])
        >>> with_prototypes = contrast.eval()(rows, rows, indexes)
        >>> round((with_prototypes - contrast(rows, rows)).item(), 4)  # the term of the prototypes: log(1 + exp(-5))
        0.0067
    """

    def __init__(
        self, num_features: int, size: int = 16384, temperature: float = 0.2, *, update: str = "forward"
    ) -> None:
        super().__init__(num_features, size, temperature, update=update)
        self.assignments: list[Tensor] = []
        self.centroids: list[Tensor] = []
        self.densities: list[Tensor] = []

    def fill(self, assignments: Sequence[Tensor], centroids: Sequence[Tensor], densities: Sequence[Tensor]) -> None:
        """Set the prototypes of an epoch, one of each per granularity; see :func:`prototype_density`.

        Raises:
            ValueError: lists of different lengths, tensors of wrong shapes, an assignment out of ``[0, C)`` that is not
                -1.
        """
        if not len(assignments) == len(centroids) == len(densities):
            raise ValueError(
                "assignments, centroids, densities: expected one of each per granularity, got "
                f"{len(assignments)}, {len(centroids)} and {len(densities)}"
            )
        for assignment, rows, density in zip(assignments, centroids, densities, strict=True):
            checks.same_columns(centroids=checks.matrix("centroids", rows, checks.SINGLE_OR_DOUBLE), queue=self.queue)
            assignment = checks.tensor("assignments", assignment, 1, checks.INTEGER)
            checks.labels_in_range("assignments", assignment.cpu(), len(rows))
            if tuple(density.shape) != (len(rows),):
                raise ValueError(f"densities: expected shape ({len(rows)},), got {tuple(density.shape)}")
        device = self.queue.device
        self.assignments = [each.to(device).long() for each in assignments]
        self.centroids = [each.detach().to(device) for each in centroids]
        self.densities = [each.detach().to(device) for each in densities]

    def forward(
        self, queries: Tensor, keys: Tensor, indexes: Tensor | None = None, negatives: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Mean loss of a batch; ``update`` says when its keys are put into the queue.

        Args:
            queries: ``[B, D]`` features of any norm.
            keys: ``[B, D]`` features of the key encoder, of any norm.
            indexes: ``[B]`` the image of each query, in ``[0, N)``. The loss against prototypes leaves out -1, and
                images with the assignment -1. None, or without prototypes: only MoCo's loss, as in the first epochs.
            negatives: the other prototypes ``[R]`` for each granularity; None: they are drawn.

        Returns:
            The scalar loss, float32 (float64 for float64 queries).
        """
        queries, keys = self._checked(queries, keys)
        chosen = [] if indexes is None else self._chosen(indexes, queries, negatives)

        def loss_of(moving: bool, queries: Tensor) -> Tensor:
            loss = self._loss(queries, keys, moving)
            rows = wide(queries, True)
            terms = [self._prototype_loss(rows[own], g, columns) for g, (own, columns) in enumerate(chosen)]
            return loss + torch.stack(terms).mean() if terms else loss

        return self._step(loss_of, queries, targets=[keys, *itertools.chain(*chosen)])

    def _chosen(
        self, indexes: Tensor, queries: Tensor, negatives: Sequence[Tensor] | None
    ) -> list[tuple[Tensor, Tensor]]:
        """The samples that have a prototype, and the prototypes that are columns, for each granularity."""
        indexes = checks.vector_of_integers("indexes", indexes, queries.shape[0], "queries")
        if negatives is not None and len(negatives) != len(self.centroids):
            raise ValueError(f"negatives: expected one per granularity ({len(self.centroids)}), got {len(negatives)}")
        chosen = []
        for g, (assignment, rows) in enumerate(zip(self.assignments, self.centroids, strict=True)):
            images = counted_labels("indexes", indexes, len(assignment))
            prototypes = torch.where(images != -1, assignment[images.clamp_min(0)], -1)
            samples = (prototypes != -1).nonzero().squeeze(1)
            own = prototypes[samples]
            if negatives is None:
                free = torch.ones(len(rows), dtype=torch.bool, device=own.device)
                free[own] = False
                others = free.nonzero().squeeze(1)
                others = others[torch.randperm(len(others), device=own.device)[: self.queue.shape[0]]]
            else:
                others = negatives[g].to(own.device).long()
            chosen.append((samples, torch.cat([own, others])))
        return chosen

    def _prototype_loss(self, q: Tensor, granularity: int, columns: Tensor) -> Tensor:
        rows = self.centroids[granularity][columns].to(q.dtype)
        logits = q @ rows.T / self.densities[granularity][columns].to(q.dtype)
        return -logits.log_softmax(1).diagonal().sum() / max(1, len(q))


def prototype_density(
    squared_distances: Tensor, assignment: Tensor, num_clusters: int, temperature: float = 0.2
) -> Tensor:
    """Concentration of each prototype (PCL, section 3.3, as in the authors' code).

    For a cluster of n > 1 members it is the mean of their distances divided by ``ln(n + 10)``; for the others it is the
    largest of these values. Then the values are clipped to their 10th and 90th percentile, and scaled to a mean of
    ``temperature``.

    Args:
        squared_distances: ``[N]`` squared distance of each image from its centroid.
        assignment: ``[N]`` integers in ``[0, num_clusters)``.
        num_clusters: C.
        temperature: above 0.

    Returns:
        ``[C]`` float64.

    Raises:
        TypeError: a tensor of another dtype.
        ValueError: different lengths, an argument out of range, no cluster with more than one member.

    Examples:
        >>> import torch, ccfast
        >>> squared_distances, assignment = torch.tensor([1.0, 1.0, 4.0, 4.0]), torch.tensor([0, 0, 1, 1])
        >>> density = ccfast.nn.prototype_density(squared_distances, assignment, num_clusters=2, temperature=0.3)
        >>> [round(value, 2) for value in density.tolist()]  # clipped to 1.1 and 1.9, and then scaled
        [0.22, 0.38]
    """
    squared_distances = checks.tensor("squared_distances", squared_distances, 1, checks.SINGLE_OR_DOUBLE)
    assignment = checks.vector_of_integers("assignment", assignment, len(squared_distances), "squared_distances")
    num_clusters = checks.integer("num_clusters", num_clusters, low=1)
    temperature = checks.real("temperature", temperature, low=0, ends="(]")
    checks.labels_in_range("assignment", assignment, num_clusters)
    count = assignment.bincount(minlength=num_clusters)
    distances = squared_distances.double().sqrt()
    sums = torch.zeros(num_clusters, dtype=torch.float64, device=distances.device).index_add_(0, assignment, distances)
    several = count > 1
    if not several.any():
        raise ValueError("assignment: expected at least one cluster with more than one member, got none")
    density = sums / count.clamp_min(1) / (count + 10).double().log()
    density = torch.where(several, density, density[several].max())
    density = density.clamp(density.quantile(0.1), density.quantile(0.9))
    return density * (temperature / density.mean())
