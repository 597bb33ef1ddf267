"""scikit-learn's 1,797 handwritten digits (8x8): training takes a minute, and nothing is downloaded."""

from __future__ import annotations

import torch

from ccfast.data.drawings import drawing_views
from ccfast.data.reid_data import Part, ReIDData

#: The split is part of the data set, not of a run: it does not depend on the run's seed.
SPLIT_SEED = 0


def load_digits() -> ReIDData:
    """Two thirds to train on without labels; the held-out third is split into a query (1/3) and a gallery (2/3)."""
    from sklearn.datasets import load_digits as sklearn_digits

    digits = sklearn_digits()
    images = torch.from_numpy(digits.images).float().div(16)[:, None]  # [1797, 1, 8, 8] in [0, 1]
    ids = torch.from_numpy(digits.target).long()
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(SPLIT_SEED))
    held_out = len(ids) // 3
    query, gallery, train = order.tensor_split([held_out // 3, held_out])
    parts = {name: Part(images[rows], ids[rows]) for name, rows in (("q", query), ("g", gallery), ("t", train))}
    return ReIDData("digits", parts["t"], parts["q"], parts["g"], channels=1, make_views=drawing_views)
