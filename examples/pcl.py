"""PCL (Li et al., ICLR 2021) on scikit-learn's digits: python examples/pcl.py

MoCo's loss, and a loss against k-means prototypes at several granularities, which are computed in each epoch.
"""

from __future__ import annotations

import copy

import torch
from digits import DIM, Encoder, batches, epochs_of, extract, learn, load, view
from sklearn.cluster import KMeans

import ccfast
from ccfast.nn import PrototypeContrast, prototype_density, update_average_

BATCH, QUEUE, GRANULARITIES = 128, 1024, (10, 20, 40)


def prototypes(features: torch.Tensor) -> tuple[list[torch.Tensor], ...]:
    """Assignments, centroids and densities, one of each per granularity."""
    found: tuple[list[torch.Tensor], ...] = ([], [], [])
    for clusters in GRANULARITIES:
        labels = KMeans(clusters, n_init=1, random_state=0).fit_predict(features.numpy())
        assignment = torch.from_numpy(labels).long()
        centroids = ccfast.cluster_centroids(features, assignment)
        distances = (features - centroids[assignment]).square().sum(1)
        density = prototype_density(distances, assignment, clusters)
        for parts, part in zip(found, (assignment, centroids, density.float()), strict=True):
            parts.append(part)
    return found


def main(epochs: int) -> tuple[float, float]:
    torch.manual_seed(0)
    data = load()
    encoder = Encoder()
    key_encoder = copy.deepcopy(encoder)
    contrast = PrototypeContrast(DIM, QUEUE, temperature=0.2)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=2e-3)
    begun = False

    def epoch() -> float:
        nonlocal begun
        if begun:  # the first epoch uses only MoCo's loss
            contrast.fill(*prototypes(extract(key_encoder, data[0])))
        total = torch.zeros(())
        chosen = batches(len(data[0]), BATCH)
        for rows in chosen:
            queries = encoder(view(data[0][rows]))
            with torch.no_grad():
                keys = key_encoder(view(data[0][rows]))
            loss = contrast(queries, keys, indexes=rows if begun else None)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            update_average_(key_encoder, encoder, momentum=0.99)
            total += loss.detach()
        begun = True
        return float(total) / len(chosen)

    return learn(encoder, data, epochs, epoch)


if __name__ == "__main__":
    main(epochs_of(__doc__, default=10))
