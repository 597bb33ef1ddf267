"""SwAV (Caron et al., NeurIPS 2020) on scikit-learn's digits: python examples/swav.py

Each view predicts the prototypes to which the other view was assigned; the assignments use all prototypes equally.
"""

from __future__ import annotations

import torch
from digits import DIM, Encoder, batches, epochs_of, learn, load, view

from ccfast.nn import SwappedAssignment

BATCH, PROTOTYPES, CROPS = 128, 100, 2


def main(epochs: int) -> tuple[float, float]:
    torch.manual_seed(0)
    data = load()
    encoder = Encoder()
    swav = SwappedAssignment(PROTOTYPES, DIM, temperature=0.1, queue_length=3 * BATCH)
    optimizer = torch.optim.Adam([*encoder.parameters(), *swav.parameters()], lr=1e-3)

    def epoch() -> float:
        swav.start_epoch()
        total = torch.zeros(())
        chosen = batches(len(data[0]), BATCH)
        for rows in chosen:
            crops = [view(data[0][rows]) for _ in range(CROPS)]
            loss = swav(encoder(torch.cat(crops)), crops=CROPS)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach()
        return float(total) / len(chosen)

    return learn(encoder, data, epochs, epoch)


if __name__ == "__main__":
    main(epochs_of(__doc__, default=10))
