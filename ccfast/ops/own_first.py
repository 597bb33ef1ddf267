"""Every row first among its own neighbours."""

from __future__ import annotations

import torch
from torch import Tensor


def own_first(indices: Tensor, own: Tensor) -> Tensor:
    """Lists [R, K] of the rows ``own`` [R] with each row's own index moved to the front.

    All entries before it also have distance 0. If more than K duplicates come before it, it is missing from its list
    and replaces the last entry.
    """
    own = own[:, None]
    others = (indices != own).long().cumsum(dim=1)  # the number of other rows up to each position
    places = torch.where(indices == own, 0, others)
    padded = indices.new_empty(len(indices), indices.shape[1] + 1)
    padded.scatter_(1, places, indices)
    padded[:, :1] = own
    return padded[:, : indices.shape[1]].contiguous()
