"""scikit-learn's 1,797 handwritten digits (8x8): small enough to train on in a minute, nothing to download."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ccfast.data.reid_data import Part, ReIDData, Views

#: The split is part of the data set, not of a run: it does not depend on the run's seed.
SPLIT_SEED = 0

MAX_ANGLE = math.radians(12)
MAX_SHIFT = 1 / 8  # of half the width: half a pixel
MAX_SCALE = 0.1


def load_digits() -> ReIDData:
    """Two thirds to train on without their labels; the held-out third split into a query (1/3) and a gallery (2/3)."""
    from sklearn.datasets import load_digits as sklearn_digits

    digits = sklearn_digits()
    images = torch.from_numpy(digits.images).float().div(16)[:, None]  # [1797, 1, 8, 8] in [0, 1]
    ids = torch.from_numpy(digits.target).long()
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(SPLIT_SEED))
    held_out = len(ids) // 3
    query, gallery, train = order.tensor_split([held_out // 3, held_out])
    parts = {name: Part(images[rows], ids[rows]) for name, rows in (("q", query), ("g", gallery), ("t", train))}
    return ReIDData("digits", parts["t"], parts["q"], parts["g"], channels=1, make_views=_views)


def _views(encoder: Any) -> Views:
    return Views(plain=lambda image: image, augmented=augment)


def augment(image: Tensor, seed: int) -> Tensor:
    """A digit [1, H, W] slightly turned, scaled and shifted; the same for the same ``seed``."""
    generator = torch.Generator().manual_seed(seed)
    turn, grow_x, grow_y, shift_x, shift_y = (2 * torch.rand(5, generator=generator) - 1).tolist()
    cos, sin = math.cos(turn * MAX_ANGLE), math.sin(turn * MAX_ANGLE)
    scale_x, scale_y = 1 + grow_x * MAX_SCALE, 1 + grow_y * MAX_SCALE
    theta = torch.tensor(
        [
            [cos * scale_x, -sin * scale_y, shift_x * MAX_SHIFT],
            [sin * scale_x, cos * scale_y, shift_y * MAX_SHIFT],
        ]
    )
    grid = F.affine_grid(theta[None], [1, *image.shape], align_corners=False)
    return F.grid_sample(image[None], grid, align_corners=False)[0]
