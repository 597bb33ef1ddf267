"""A bank with one row per image, where each image is a class: InstDisc."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ccfast import _checks as checks
from ccfast.nn._moving import MovingModule, afterwards, batch_of, checked_loss, wide
from ccfast.nn._softmax import counted_labels, cross_entropy, mean_of_counted
from ccfast.ops.similarity import memory_similarity

TINY = 1e-7


class InstanceBank(MovingModule):
    """Instance discrimination (NPID; Wu et al., CVPR 2018): the full softmax over all images, or NCE.

    Each row is updated from its image: ``normalise(m M[i] + (1 - m) x)`` with the **old** row. If a batch has several
    samples of one image, the last one is used.

    NCE (``num_negatives``): ``e = exp(x . M[r] / T)`` over the image's row and K random rows, ``Z = N mean(e)`` of the
    first batch, constant after it, ``P = e / Z``, c = K / N; the loss is the mean over the samples of
    ``-(log(P_0 / (P_0 + c + 1e-7)) + sum_k log(c / (P_k + c + 1e-7)))``.

    Args:
        num_features: D.
        num_rows: N, the number of images.
        temperature: T, above 0.
        momentum: share of the old row that an update keeps, in ``[0, 1]``.
        num_negatives: K of NCE (4096 in the paper); None: the full softmax.
        normalize: divide the inputs by their norm; the authors' encoder gives unit rows.
        update: when the bank is updated, as in :class:`ccfast.nn.ClusterMemory`.

    Attributes:
        features: buffer ``[N, D]`` float32; initially uniform in +-1 / sqrt(D / 3) without unit norm, as in the
            authors' code.
        normalizer: buffer, scalar: Z; NaN until the first call of NCE.

    Raises:
        ValueError: an argument out of range.

    Examples:
        >>> import torch, ccfast
        >>> bank = ccfast.nn.InstanceBank(num_features=2, num_rows=3, momentum=0.0)
        >>> bank(torch.tensor([[0.0, 1.0]], requires_grad=True), indexes=torch.tensor([2])).backward()
        >>> bank.features[2].tolist()
        [0.0, 1.0]
    """

    features: Tensor
    normalizer: Tensor

    def __init__(
        self,
        num_features: int,
        num_rows: int,
        temperature: float = 0.07,
        momentum: float = 0.5,
        *,
        num_negatives: int | None = None,
        normalize: bool = False,
        update: str = "backward",
    ) -> None:
        super().__init__(update)
        num_features = checks.integer("num_features", num_features, low=1)
        num_rows = checks.integer("num_rows", num_rows, low=1)
        self.temperature = checks.real("temperature", temperature, low=0, ends="(]")
        self.momentum = checks.real("momentum", momentum, low=0, high=1)
        self.num_negatives = None if num_negatives is None else checks.integer("num_negatives", num_negatives, low=1)
        self.normalize = bool(normalize)
        bound = (3 / num_features) ** 0.5
        self.register_buffer(
            "features", torch.empty(num_rows, num_features, dtype=torch.float32).uniform_(-bound, bound)
        )
        self.register_buffer("normalizer", torch.tensor(torch.nan, dtype=torch.float32))

    def forward(self, inputs: Tensor, indexes: Tensor, rows: Tensor | None = None) -> Tensor:
        """Mean loss of a batch; ``update`` says when the bank is updated from it.

        Args:
            inputs: ``[B, D]`` features.
            indexes: ``[B]`` the image of each input in ``[0, N)``; -1 is ignored in the loss and in the update.
            rows: ``[B, K + 1]`` the rows for NCE, with the image's own row in column 0; None: K rows are drawn
                uniformly with replacement. Not used by the full softmax.

        Returns:
            The scalar loss, float32 (float64 for float64 inputs).

        Raises:
            ValueError: as above; ``rows`` with a wrong shape or out of range.
        """
        inputs, indexes = batch_of(inputs, indexes, self.features, "indexes")
        indexes = counted_labels("indexes", indexes, self.features.shape[0])
        if self.num_negatives is None:
            return self._step(
                lambda moving, inputs: self._softmax_loss(inputs, indexes, moving), inputs, targets=[indexes]
            )
        scored = self._scored(indexes, rows)
        return self._step(
            lambda moving, inputs: self._nce_loss(inputs, indexes, scored, moving), inputs, targets=[indexes, scored]
        )

    def _softmax_loss(self, inputs: Tensor, indexes: Tensor, moving: bool) -> Tensor:
        bank, momentum = self.features, self.momentum

        def move(features: Tensor) -> None:
            _keep_last(bank, bank[indexes.clamp_min(0)], features, indexes, momentum)

        logits = memory_similarity(wide(inputs, self.normalize), bank, move if moving else None) / self.temperature
        return checked_loss(cross_entropy(logits, indexes), inputs=inputs)

    def _nce_loss(self, inputs: Tensor, indexes: Tensor, scored: Tensor, moving: bool) -> Tensor:
        bank, momentum = self.features, self.momentum
        read = bank[scored]  # [B, K + 1, D]: like the authors' code, keeps the rows of the forward pass for backward
        x = wide(inputs, self.normalize)
        old, detached = read[:, 0], x.detach()
        (x,) = afterwards((lambda: _keep_last(bank, old, detached, indexes, momentum)) if moving else None, x)
        terms = torch.exp((read.to(x.dtype) @ x[:, :, None]).squeeze(2) / self.temperature)
        counted, noise = indexes != -1, (scored.shape[1] - 1) / bank.shape[0]
        if torch.isnan(self.normalizer) and counted.any():
            of_rows = mean_of_counted(terms.detach().mean(1), counted)
            self.normalizer.copy_(of_rows * bank.shape[0])
        probability = terms / self.normalizer.nan_to_num(1.0).to(terms.dtype)
        share = probability + (noise + TINY)
        losses = torch.log(probability[:, 0] / share[:, 0]) + torch.log(noise / share[:, 1:]).sum(1)
        return checked_loss(-mean_of_counted(losses, counted), inputs=inputs)

    def _scored(self, indexes: Tensor, rows: Tensor | None) -> Tensor:
        """Rows to score, ``[B, K + 1]``."""
        shape = (len(indexes), int(self.num_negatives or 0) + 1)
        if rows is None:
            drawn = torch.randint(self.features.shape[0], (shape[0], shape[1] - 1), device=indexes.device)
            return torch.cat([indexes.clamp_min(0)[:, None], drawn], 1)
        rows = checks.tensor("rows", rows, 2, checks.INTEGER).long()
        if tuple(rows.shape) != shape:
            raise ValueError(f"rows: expected shape {shape} (B, num_negatives + 1), got {tuple(rows.shape)}")
        if rows.device.type == "cpu" and ((rows < 0) | (rows >= len(self.features))).any():
            raise ValueError(f"rows: expected values in [0, {len(self.features)}), got a value out of range")
        return rows

    def extra_repr(self) -> str:
        """Sizes and options, for ``print(module)``."""
        rows, features = self.features.shape
        return (
            f"num_features={features}, num_rows={rows}, temperature={self.temperature}, momentum={self.momentum}, "
            f"num_negatives={self.num_negatives}, update={self.update!r}"
        )


@torch.no_grad()
def _keep_last(bank: Tensor, old: Tensor, features: Tensor, indexes: Tensor, momentum: float) -> None:
    """``bank[i] = normalise(momentum * old + (1 - momentum) * x)``, with the last sample of each row."""
    mixed = F.normalize(momentum * old + (1 - momentum) * features.to(bank.dtype), dim=1)
    equal = (indexes[:, None] == indexes).triu(1)
    last = ~equal.any(1) & (indexes != -1)
    bank[indexes[last]] = mixed[last]
