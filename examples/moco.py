"""MoCo (He et al., CVPR 2020) on scikit-learn's digits: python examples/moco.py

Two views of an image are query and key; the negatives are a queue of older keys from a momentum encoder.
"""

from __future__ import annotations

import copy

import torch
from digits import DIM, Encoder, batches, epochs_of, learn, load, view

from ccfast.nn import QueueContrast, update_average_

BATCH, QUEUE = 128, 1024


def main(epochs: int) -> tuple[float, float]:
    torch.manual_seed(0)
    data = load()
    encoder = Encoder()
    key_encoder = copy.deepcopy(encoder)
    contrast = QueueContrast(DIM, QUEUE, temperature=0.2)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=2e-3)

    def epoch() -> float:
        total = torch.zeros(())
        chosen = batches(len(data[0]), BATCH)
        for rows in chosen:
            queries = encoder(view(data[0][rows]))
            with torch.no_grad():
                keys = key_encoder(view(data[0][rows]))
            loss = contrast(queries, keys)  # then the keys go into the queue
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            update_average_(key_encoder, encoder, momentum=0.99)
            total += loss.detach()
        return float(total) / len(chosen)

    return learn(encoder, data, epochs, epoch)


if __name__ == "__main__":
    main(epochs_of(__doc__, default=10))
