"""PGM (Wu and Ye, CVPR 2023): two memories, and in turn the images of one kind against the memory of the other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ccfast.methods.cross_modal import CrossModal


class PGM(CrossModal):
    """Epochs are counted from 0: in even ones visible images meet the infrared memory, in odd ones the reverse.

    A batch holds two augmentations of each visible image. How the clusters are matched is not specified by the code
    that we have read; here it is done by :func:`progressive_matching` of the memories.
    """

    visible_views = 2

    def start_epoch(self, features: Tensor, labels: Tensor, epoch: int) -> None:
        """New memories, and which clusters correspond."""
        super().start_epoch(features, labels, epoch)
        visible, infrared = self.memory.visible.features, self.memory.infrared.features
        rows, others = (infrared, visible) if epoch % 2 else (visible, infrared)
        mapping = progressive_matching(rows @ others.T).to(features.device)
        self.matches = {"cross": "visible" if epoch % 2 else "infrared", "mapping": mapping}

    def cross(self) -> dict[str, Any]:
        """The cross term of this epoch."""
        return self.matches


def progressive_matching(similarity: Tensor) -> Tensor:
    """A column for each row of ``similarity`` ``[R, C]``: one-to-one assignments of highest sum, until no row is left.

    Where there are more rows than columns, the rows that an assignment leaves are assigned among all columns again.
    Returns ``[R]`` int64 on the CPU.
    """
    from scipy.optimize import linear_sum_assignment

    scores = similarity.detach().double().cpu()
    columns, left = torch.full((len(scores),), -1), torch.arange(len(scores))
    while len(left):
        rows, found = (torch.from_numpy(each) for each in linear_sum_assignment(scores[left].numpy(), maximize=True))
        columns[left[rows]] = found
        left = left[~torch.isin(torch.arange(len(left)), rows)]
    return columns
