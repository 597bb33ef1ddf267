"""Every row first among its own neighbours."""

from __future__ import annotations

import torch
from torch import Tensor


def own_first(indices: Tensor, own: Tensor) -> Tensor:
    """Lists [R, K] of the rows ``own`` [R] with each row's own index moved to the front.

    What stands before it is at distance 0, too. Where it is not in its list, as more than K duplicates come before it,
    the last one gives way.
    """
    own = own[:, None]
    others = (indices != own).long().cumsum(dim=1)  # how many others there are up to each place
    places = torch.where(indices == own, 0, others)
    padded = indices.new_empty(len(indices), indices.shape[1] + 1)
    padded.scatter_(1, places, indices)
    padded[:, :1] = own
    return padded[:, : indices.shape[1]].contiguous()
