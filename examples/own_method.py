"""Your own method on scikit-learn's digits: python examples/own_method.py

One row per image, and a softmax over the mean similarities to the rows of each cluster. :class:`MeanSimilarity` is the
method; :class:`OwnMethod` makes it a method of ``ccfast train``, which adds checkpoints, processes and a report:

cd examples && ccfast train --method own_method:OwnMethod --dataset digits
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from digits import Encoder, epochs_of, extract, learn, load, view
from torch import Tensor, nn

import ccfast
from ccfast.methods import Method

BATCH, STEPS = 64, 30


class MeanSimilarity(nn.Module):
    """The parts of a method: a buffer, a product with it, a loss, and a rule that updates the buffer."""

    def __init__(self, rows: Tensor, labels: Tensor, temperature: float = 0.05, momentum: float = 0.1) -> None:
        super().__init__()
        self.temperature, self.momentum = temperature, momentum
        self.register_buffer("features", rows.clone())
        self.register_buffer("labels", labels)  # -1: in no cluster

    def forward(self, inputs: Tensor, rows: Tensor) -> Tensor:
        """The loss of unit features [B, D] of the images with the indices ``rows``; then their rows are updated."""

        def move(features: Tensor) -> None:  # called in backward, after the gradient
            ccfast.update_memory_(self.features, features, rows, self.momentum)

        similarity = ccfast.memory_similarity(inputs, self.features, move) / self.temperature
        means, _ = ccfast.segment_mean(similarity, self.labels, int(self.labels.max()) + 1)  # [B, clusters]
        return F.cross_entropy(means, self.labels[rows])


class OwnMethod(Method):
    """The same as a method of ``ccfast train``: the loop clusters, draws batches of clusters, and calls the loss."""

    defaults: ClassVar = {"temperature": 0.05, "momentum": 0.1}

    def start_epoch(self, features: Tensor, labels: Tensor, epoch: int) -> None:
        self.memory = MeanSimilarity(features, labels, self.config.temperature, self.config.momentum)

    def criterion(self, features: Tensor, targets: Tensor, indices: Tensor) -> Tensor:
        return self.memory(features, indices)


def main(epochs: int) -> tuple[float, float]:
    torch.manual_seed(0)
    data = load()
    images, encoder = data[0], Encoder()
    optimizer = torch.optim.Adam(encoder.parameters(), lr=2e-3, weight_decay=5e-4)

    def epoch() -> float:
        features = extract(encoder, images)
        labels = ccfast.dbscan(ccfast.jaccard_distance(features, k1=20, k2=6, max_distance=0.6), eps=0.6)
        memory = MeanSimilarity(features, labels)
        clustered = torch.nonzero(labels >= 0)[:, 0]
        total = torch.zeros(())
        for _ in range(STEPS):
            rows = clustered[torch.randint(len(clustered), (BATCH,))]
            loss = memory(F.normalize(encoder(view(images[rows])), dim=1), rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach()
        return float(total) / STEPS

    return learn(encoder, data, epochs, epoch)


if __name__ == "__main__":
    main(epochs_of(__doc__, default=10))
