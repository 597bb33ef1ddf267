"""SupCon (Khosla et al., NeurIPS 2020) on scikit-learn's digits: python examples/supcon.py

Only every tenth image has its label; each other image is a separate class, as in SimCLR.
"""

from __future__ import annotations

import torch
from digits import Encoder, batches, epochs_of, learn, load, view

from ccfast.nn import SupConLoss

BATCH, KNOWN = 128, 10


def main(epochs: int) -> tuple[float, float]:
    torch.manual_seed(0)
    data = load()
    images, digits = data[:2]
    numbers = torch.arange(len(images))
    labels = torch.where(
        numbers % KNOWN == 0, digits, 10 + numbers
    )  # an unlabelled image is the only one with its label
    encoder = Encoder()
    criterion = SupConLoss(temperature=0.2, base_temperature=0.2, normalize=True)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=2e-3)

    def epoch() -> float:
        total = torch.zeros(())
        chosen = batches(len(images), BATCH)
        for rows in chosen:
            features = encoder(torch.cat([view(images[rows]), view(images[rows])]))
            loss = criterion(torch.stack(features.chunk(2), dim=1), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach()
        return float(total) / len(chosen)

    return learn(encoder, data, epochs, epoch)


if __name__ == "__main__":
    main(epochs_of(__doc__, default=10))
