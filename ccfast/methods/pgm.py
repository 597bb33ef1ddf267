"""PGM (Wu and Ye, CVPR 2023): two memories, and alternately the images of one modality against the other's memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ccfast.methods.cross_modal import CrossModal


class PGM(CrossModal):
    """Epochs count from 0: even epochs compare visible images with the infrared memory, odd epochs the reverse.

    A batch has two augmentations of each visible image. The code that we have read does not specify how the clusters
    are matched; ccfast uses :func:`progressive_matching` of the memories.
    """

    visible_views = 2

    def start_epoch(self, features: Tensor, labels: Tensor, epoch: int) -> None:
        """New memories, and the matching of their clusters."""
        super().start_epoch(features, labels, epoch)
        visible, infrared = self.memory.visible.features, self.memory.infrared.features
        rows, others = (infrared, visible) if epoch % 2 else (visible, infrared)
        mapping = progressive_matching(rows @ others.T).to(features.device)
        self.matches = {"cross": "visible" if epoch % 2 else "infrared", "mapping": mapping}

    def cross(self) -> dict[str, Any]:
        """The cross term of this epoch."""
        return self.matches


def progressive_matching(similarity: Tensor) -> Tensor:
    """One column per row of ``similarity`` ``[R, C]``: one-to-one assignments of the highest sum, until all have one.

    If there are more rows than columns, the rows without a column are again assigned to all columns. Returns ``[R]``
    int64 on the CPU.
    """
    from scipy.optimize import linear_sum_assignment

    scores = similarity.detach().double().cpu()
    columns, left = torch.full((len(scores),), -1), torch.arange(len(scores))
    while len(left):
        rows, found = (torch.from_numpy(each) for each in linear_sum_assignment(scores[left].numpy(), maximize=True))
        columns[left[rows]] = found
        left = left[~torch.isin(torch.arange(len(left)), rows)]
    return columns
