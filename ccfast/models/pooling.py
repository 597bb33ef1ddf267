"""From feature maps [B, D, h, w] to vectors [B, D]."""

from __future__ import annotations

import torch
from torch import Tensor, nn

POOLINGS = ("gem", "average")


class GeM(nn.Module):
    """Generalised mean, ``(mean x^p)^(1/p)`` with a learnable p (Radenovic et al., TPAMI 2018, eq. 3)."""

    def __init__(self, p: float = 3.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor([p]))
        self.eps = eps

    def forward(self, maps: Tensor) -> Tensor:
        """[B, D, h, w] to [B, D]."""
        powers = maps.clamp(min=self.eps).pow(self.p)
        return powers.mean(dim=(2, 3)).pow(1 / self.p)


class Average(nn.Module):
    """The mean over the positions."""

    def forward(self, maps: Tensor) -> Tensor:
        """[B, D, h, w] to [B, D]."""
        return maps.mean(dim=(2, 3))


def make_pooling(name: str) -> nn.Module:
    """The pooling called ``name``, one of :data:`POOLINGS`."""
    return GeM() if name == "gem" else Average()
