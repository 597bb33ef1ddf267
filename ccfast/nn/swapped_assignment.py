"""Swapped prediction of assignments to prototypes: SwAV."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ccfast import _checks as checks
from ccfast.nn._moving import UPDATES, checked_loss, wide
from ccfast.ops.queue import enqueue_
from ccfast.ops.sinkhorn import sinkhorn


class SwappedAssignment(nn.Module):
    """Each crop predicts the assignment of another crop to learned prototypes (SwAV; Caron et al., NeurIPS 2020).

    For each of the first two crops, :func:`ccfast.sinkhorn` turns the scores into an assignment, together with the
    scores of a queue of older embeddings, if it is in use. All other crops must predict this assignment. The queue is
    in use from the first step at which its last row is not all zero; this is tested before the step fills it, with one
    flag for the queues of both crops. With ``torch.distributed`` all processes are normalised together.

    Args:
        num_prototypes: K.
        num_features: D.
        temperature: of the prediction, above 0.
        epsilon: of the assignment, above 0.
        iterations: of the assignment.
        queue_length: rows L of each queue; 0: no queue. The recipe starts the queue at epoch 15.
        update: only ``"forward"``: in training mode the queue is filled before the loss is computed, as in the authors'
            code.

    Attributes:
        prototypes: parameter ``[K, D]``; its rows are normalised in place before each step.
        queue: buffer ``[2, L, D]`` float32, newest rows first.
        queue_in_use: buffer, bool; :meth:`start_epoch` sets it to False, as in the authors' code.

    Raises:
        ValueError: an argument out of range.

    Examples:
        >>> import torch, ccfast
        >>> swav = ccfast.nn.SwappedAssignment(num_prototypes=2, num_features=2)
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])  # two crops of two images
        >>> swav.prototypes.data = torch.eye(2)
        >>> round(swav(embeddings, crops=2).item(), 4)  # log(1 + exp(-10)): the crops agree
        0.0
    """

    queue: Tensor
    queue_in_use: Tensor

    def __init__(
        self,
        num_prototypes: int,
        num_features: int,
        temperature: float = 0.1,
        epsilon: float = 0.05,
        iterations: int = 3,
        queue_length: int = 0,
        *,
        update: str = "forward",
    ) -> None:
        super().__init__()
        num_prototypes = checks.integer("num_prototypes", num_prototypes, low=1)
        num_features = checks.integer("num_features", num_features, low=1)
        self.temperature = checks.real("temperature", temperature, low=0, ends="(]")
        self.epsilon = checks.real("epsilon", epsilon, low=0, ends="(]")
        self.iterations = checks.integer("iterations", iterations, low=0)
        queue_length = checks.integer("queue_length", queue_length, low=0)
        self.update = checks.choice("update", update, UPDATES[:1])
        self.prototypes = nn.Parameter(F.normalize(torch.randn(num_prototypes, num_features), dim=1))
        self.register_buffer("queue", torch.zeros(2, queue_length, num_features, dtype=torch.float32))
        self.register_buffer("queue_in_use", torch.tensor(False))

    def start_epoch(self) -> None:
        """Mark the queue as unused, until its last row is found to be filled again."""
        self.queue_in_use.fill_(False)

    def forward(self, embeddings: Tensor, crops: int) -> Tensor:
        """Loss of a batch of crops; the first two crops go into the queues.

        Args:
            embeddings: ``[V B, D]`` of any norm, crop after crop.
            crops: V, at least 2.

        Returns:
            The scalar loss, float32 (float64 for float64 embeddings). The gradient goes to the embeddings and to the
            normalised prototypes.

        Raises:
            ValueError: an empty input, a different number of columns, a number of rows that is not a multiple of V,
                more rows per crop than the queue has.
        """
        embeddings = checks.matrix("embeddings", embeddings, checks.ANY_FLOAT)
        checks.same_columns(embeddings=embeddings, prototypes=self.prototypes)
        checks.same_device(embeddings=embeddings, prototypes=self.prototypes)
        crops = checks.integer("crops", crops, low=2)
        if embeddings.shape[0] % crops:
            raise ValueError(f"embeddings: expected a multiple of {crops} rows (crops), got {embeddings.shape[0]}")
        # With .data: a graph of an earlier step may still need the prototypes, which had unit norm there too.
        self.prototypes.data.copy_(F.normalize(self.prototypes.data, dim=1))
        with torch.autocast(embeddings.device.type, enabled=False):
            unit = wide(embeddings, True)
            scores = (unit @ self.prototypes.to(unit.dtype).T).chunk(crops)
            rows = unit.detach().chunk(crops)
            losses = []
            for crop in (0, 1):
                assignment = self._assignment(crop, rows[crop], scores[crop].detach())
                others = [scores[v] for v in range(crops) if v != crop]
                losses += [-(assignment * (z / self.temperature).log_softmax(1)).sum(1).mean() for z in others]
            return checked_loss(torch.stack(losses).mean(), embeddings=embeddings)

    @torch.no_grad()
    def _assignment(self, crop: int, rows: Tensor, scores: Tensor) -> Tensor:
        """``[B, K]``; also fills the crop's queue."""
        batch = len(rows)
        if self.queue.shape[1]:
            queue = self.queue[crop]
            if self.queue_in_use or queue[-1].any():
                self.queue_in_use.fill_(True)
                scores = torch.cat([queue.to(scores.dtype) @ self.prototypes.to(scores.dtype).T, scores])
            if self.training:
                enqueue_(queue, None, rows.to(queue.dtype))
        return sinkhorn(scores, self.epsilon, self.iterations)[-batch:]

    def extra_repr(self) -> str:
        """Sizes and options, for ``print(module)``."""
        prototypes, features = self.prototypes.shape
        return (
            f"num_prototypes={prototypes}, num_features={features}, temperature={self.temperature}, "
            f"epsilon={self.epsilon}, iterations={self.iterations}, queue_length={self.queue.shape[1]}"
        )
