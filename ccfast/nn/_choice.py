"""Choices among columns and among the samples of a batch, as masks. No function here waits for the device."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def best_columns(scores: Tensor, count: int, among: Tensor) -> Tensor:
    """Mask of the ``count`` columns with the highest score in each row; for equal scores the lower index comes first.

    Args:
        scores: ``[B, P]``.
        count: at least 0.
        among: ``[B, P]`` or ``[P]`` bool, the columns to choose from; if there are fewer than ``count``, all of them.
    """
    columns = scores.shape[1]
    if count <= 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    scores = torch.where(among, scores, -torch.inf)
    if count >= columns:
        return among.expand_as(scores).clone()
    lowest = scores.topk(count, dim=1, sorted=False).values.amin(1, keepdim=True)
    above = scores > lowest
    equal = (scores == lowest) & among
    still = count - above.sum(1, keepdim=True)
    return above | (equal & (equal.cumsum(1) <= still))


@torch.no_grad()
def last_columns(among: Tensor, count: Tensor) -> Tensor:
    """Mask of the ``count`` ``[B]`` columns with the highest index in each row, among those of the mask ``[B, P]``."""
    return among & (among.flip(1).cumsum(1).flip(1) <= count[:, None])


def same(labels: Tensor, *others: Tensor) -> Tensor:
    """``[B, B]``: which samples agree in all given labels; a sample whose first label is -1 agrees with none."""
    equal = (labels[:, None] == labels) & (labels != -1)
    for each in others:
        equal = equal & (each[:, None] == each)
    return equal


def place_in_group(group: Tensor) -> Tensor:
    """``[B]``: the number of samples of the same group before each sample; ``group`` is from :func:`same`."""
    return group.tril(-1).sum(1)


def first_of_group(group: Tensor) -> Tensor:
    """``[B]``: whether the sample is the first one of its group; False for samples without a group."""
    return group.diagonal() & (place_in_group(group) == 0)


def argmin_of_rows(values: Tensor, among: Tensor) -> Tensor:
    """``[B]``: the column of the mask with the lowest value in each row; for equal values the lower index."""
    values = torch.where(among, values, torch.inf)
    lowest = (values == values.amin(1, keepdim=True)) & among
    places = torch.arange(values.shape[1], device=values.device)
    return torch.where(lowest, places, values.shape[1]).amin(1).clamp_max(values.shape[1] - 1)
