"""PPLR's two losses with part features (Cho et al., CVPR 2022): refined labels, and agreement-aware smoothing."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ccfast import _checks as checks
from ccfast.nn._softmax import counted_labels, cross_entropies, mean_of_counted


def part_guided_loss(logits: Tensor, part_logits: Tensor, targets: Tensor, agreement: Tensor, beta: float) -> Tensor:
    """PGLR: cross-entropy with labels that the parts' predictions refine.

    The target weights are ``beta onehot(y) + (1 - beta) sum_q a_q softmax(part_logits_q)``, where a is the softmax of
    the agreement over the parts. No gradient goes to the parts.

    Args:
        logits: ``[B, C]`` of the global feature.
        part_logits: ``[B, C, Q]``.
        targets: ``[B]`` integers in ``[0, C)``; -1 for rows to leave out.
        agreement: ``[B, Q]`` between the global and each part's neighbours.
        beta: in ``[0, 1]``.

    Returns:
        The scalar mean over the rows that are not left out.

    Raises:
        TypeError: a tensor of another dtype or layout.
        ValueError: an empty input, wrong shapes, an argument out of range.

    Examples:
        >>> import torch, ccfast
        >>> targets, agreement = torch.tensor([0]), torch.tensor([[0.5]])
        >>> loss = ccfast.nn.part_guided_loss(torch.zeros(1, 2), torch.zeros(1, 2, 1), targets, agreement, beta=0.5)
        >>> round(loss.item(), 4)  # log 2: all predictions are uniform
        0.6931
    """
    logits, targets = _checked(logits, part_logits, targets, agreement)
    beta = checks.real("beta", beta, low=0, high=1)
    share = agreement.detach().to(logits.dtype).softmax(1)
    of_parts = (part_logits.detach().to(logits.dtype).softmax(1) * share[:, None, :]).sum(2)
    log_softmax = logits.log_softmax(1)
    refined = -(of_parts * log_softmax).sum(1)
    losses = beta * cross_entropies(logits, targets) + (1 - beta) * refined
    return mean_of_counted(losses, targets != -1)


def agreement_aware_loss(part_logits: Tensor, targets: Tensor, agreement: Tensor) -> Tensor:
    """AALS: each part's cross-entropy weighted by its agreement, and by the rest a pull to the uniform distribution.

    ``agreement CE + (1 - agreement) KL(uniform || softmax)``, the mean over the rows and over the parts.

    Args:
        part_logits: ``[B, C, Q]``.
        targets: ``[B]`` integers in ``[0, C)``; -1 for rows to leave out.
        agreement: ``[B, Q]``, in ``[0, 1]``.

    Returns:
        The scalar mean.

    Raises:
        TypeError: a tensor of another dtype or layout.
        ValueError: an empty input, wrong shapes, labels out of range.

    Examples:
        >>> import torch, ccfast
        >>> part_logits, targets = torch.zeros(1, 2, 1), torch.tensor([0])
        >>> loss = ccfast.nn.agreement_aware_loss(part_logits, targets, agreement=torch.tensor([[0.5]]))
        >>> round(loss.item(), 4)  # half of log 2, and no divergence from uniform
        0.3466
    """
    first = checks.tensor("part_logits", part_logits, 3, checks.ANY_FLOAT)[:, :, 0]
    first, targets = _checked(first, part_logits, targets, agreement)
    losses = []
    for logits, weight in zip(part_logits.to(first.dtype).unbind(2), agreement.detach().unbind(1), strict=True):
        divergence = -math.log(logits.shape[1]) - logits.log_softmax(1).mean(1)
        weight = weight.to(logits.dtype)
        mixed = weight * cross_entropies(logits, targets) + (1 - weight) * divergence
        losses.append(mean_of_counted(mixed, targets != -1))
    return torch.stack(losses).mean()


def _checked(logits: Tensor, part_logits: Tensor, targets: Tensor, agreement: Tensor) -> tuple[Tensor, Tensor]:
    """Logits in float32 or float64, and targets."""
    logits = checks.matrix("logits", logits, checks.ANY_FLOAT)
    part_logits = checks.tensor("part_logits", part_logits, 3, checks.ANY_FLOAT)
    agreement = checks.tensor("agreement", agreement, 2, checks.ANY_FLOAT)
    targets = checks.vector_of_integers("targets", targets, logits.shape[0], "logits")
    checks.same_device(logits=logits, part_logits=part_logits, targets=targets, agreement=agreement)
    if part_logits.shape[:2] != logits.shape or part_logits.shape[2] == 0:
        raise ValueError(f"part_logits: expected shape {(*logits.shape, 'Q')}, got {tuple(part_logits.shape)}")
    if tuple(agreement.shape) != (logits.shape[0], part_logits.shape[2]):
        expected = (logits.shape[0], part_logits.shape[2])
        raise ValueError(f"agreement: expected shape {expected}, got {tuple(agreement.shape)}")
    wide = logits if logits.dtype is torch.float64 else logits.float()
    return wide, counted_labels("targets", targets, logits.shape[1])
