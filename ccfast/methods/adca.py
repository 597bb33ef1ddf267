"""ADCA (Yang et al., MM 2022): two memories; initial visible rows are mixed with matching infrared rows."""

from __future__ import annotations

import torch
from torch import Tensor

import ccfast
from ccfast.methods.cross_modal import CrossModal


class ADCA(CrossModal):
    """The memories are merged at the start of each epoch (:meth:`ccfast.nn.CrossModalMemory.merge`).

    The code that we have read does not specify which images match. In ccfast each image matches the nearest image of
    the other modality, and the counts of the pairs of labels decide.
    """

    #: Share of a visible row that is kept when it is merged with its match.
    visible_share = 0.1

    def start_epoch(self, features: Tensor, labels: Tensor, epoch: int) -> None:
        """New memories, merged."""
        super().start_epoch(features, labels, epoch)
        visible, infrared = features[~self.infrared], features[self.infrared]
        of_visible = self.own_labels(labels, self.infrared)[0][~self.infrared]
        of_infrared = self.own_labels(labels, self.infrared)[1][self.infrared]
        nearest_infrared = ccfast.knn(infrared, 1, queries=visible)[0][:, 0]
        nearest_visible = ccfast.knn(visible, 1, queries=infrared)[0][:, 0]
        pairs = [
            torch.stack([of_visible, of_infrared[nearest_infrared]], 1),
            torch.stack([of_visible[nearest_visible], of_infrared], 1),
        ]
        self.memory.merge(torch.cat(pairs), self.visible_share)
