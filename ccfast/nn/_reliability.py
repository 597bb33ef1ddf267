"""SpCL's reliability criterion: which images keep the label of their cluster (Ge et al., NeurIPS 2020, section 3.2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ccfast import _checks as checks


def reliable_labels(labels: Any, tight: Any, loose: Any, threshold: float | None) -> tuple[Tensor, float]:
    """The labels of an epoch, and the threshold of independence, which is computed if not given.

    Args:
        labels: ``[N]`` integers of a clustering, -1 for noise.
        tight: the same at a smaller radius.
        loose: the same at a larger radius.
        threshold: that of the previous epochs, or None.
    """
    labels = checks.tensor("labels", labels, 1, checks.INTEGER).long()
    tight, loose = (
        checks.vector_of_integers(name, value, labels.shape[0], "labels").to(labels.device)
        for name, value in (("tight", tight), ("loose", loose))
    )
    labels, tight, loose = (_with_singletons(each) for each in (labels, tight, loose))
    count = int(labels.max()) + 1
    compactness, independence = 1 - _overlap(labels, tight), 1 - _overlap(labels, loose)
    of_label = torch.full((count,), torch.inf, device=labels.device)
    most_compact = of_label.scatter_reduce(0, labels, compactness, "amin")
    most_independent = of_label.scatter_reduce(0, labels, independence, "amin")
    if threshold is None:
        threshold = _threshold(most_independent[labels.bincount(minlength=count) > 1])
    keeps = (most_independent[labels] <= threshold) & (compactness <= most_compact[labels])
    return torch.where(keeps, labels, count - 1 + (~keeps).cumsum(0)), threshold


def _threshold(independence: Tensor) -> float:
    """The element at 0.9 n of the sorted values of the clusters with more than one image."""
    count = len(independence)
    if count == 0:
        raise ValueError("labels: expected at least one cluster with more than one image, got none")
    return float(independence.sort().values[min(count - 1, round(0.9 * count))])


def _with_singletons(labels: Tensor) -> Tensor:
    """The labels, with a new label for each noise image, numbered after the last cluster."""
    noise = labels == -1
    return torch.where(noise, labels.max() + noise.cumsum(0), labels)


def _overlap(labels: Tensor, other: Tensor) -> Tensor:
    """``[N]`` float32: intersection over union of the two clusters of each image."""
    pair = labels * (other.max() + 1) + other
    _, place, shared = pair.unique(return_inverse=True, return_counts=True)
    both = shared[place]
    union = labels.bincount()[labels] + other.bincount()[other] - both
    return both.float() / union.float()
