"""Cluster Contrast (Dai et al., ACCV 2022) on scikit-learn's digits, whole: python examples/cluster_contrast.py

Extract features, cluster them into pseudo-labels, fill a memory with the clusters' centroids, learn against it, repeat.
"""

from __future__ import annotations

import torch
from digits import DIM, Encoder, epochs_of, extract, learn, load, view

import ccfast

BATCH, STEPS = 64, 30


def pseudo_labels(features: torch.Tensor) -> torch.Tensor:
    """The cluster of each image; -1 for noise, which is left out."""
    distances = ccfast.jaccard_distance(features, k1=20, k2=6, max_distance=0.6)
    return ccfast.dbscan(distances, eps=0.6, min_samples=4)


def main(epochs: int) -> tuple[float, float]:
    torch.manual_seed(0)
    data = load()
    images, encoder = data[0], Encoder()
    optimizer = torch.optim.Adam(encoder.parameters(), lr=2e-3, weight_decay=5e-4)

    def epoch() -> float:
        features = extract(encoder, images)
        labels = pseudo_labels(features)
        centroids = ccfast.cluster_centroids(features, labels)
        memory = ccfast.nn.ClusterMemory(DIM, len(centroids), temperature=0.05, momentum=0.1)
        memory.features = centroids
        clustered = torch.nonzero(labels >= 0)[:, 0]
        total = torch.zeros(())
        for _ in range(STEPS):
            rows = clustered[torch.randint(len(clustered), (BATCH,))]
            loss = memory(encoder(view(images[rows])), labels[rows])  # then the memory is updated
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach()
        print(f"{len(centroids)} clusters, {int((labels < 0).sum())} images in no cluster; ", end="")
        return float(total) / STEPS

    return learn(encoder, data, epochs, epoch)


if __name__ == "__main__":
    main(epochs_of(__doc__, default=10))
