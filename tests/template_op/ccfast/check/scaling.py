"""Rows times factors."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

import ccfast
from ccfast.check.speed import Size, Speed
from ccfast.check.trial import Trial, short


def trials() -> Iterator[Trial]:
    """All of the family."""
    for dtype in (torch.float32, torch.float64):
        for rows, dim in ((1, 1), (97, 37)):
            given = (torch.linspace(-1, 1, rows * dim, dtype=dtype).view(rows, dim), torch.arange(rows).to(dtype))
            title = f"{short(dtype)}, {rows} x {dim}"
            yield Trial("scale_rows", title, lambda package, x, f: package.scale_rows(x, f), given, graph=True)


def speeds(size: Size) -> list[Speed]:
    """All of the family."""

    def inputs(device: torch.device) -> tuple[Tensor, Tensor]:
        return torch.ones(size.images, size.dim, device=device), torch.ones(size.images, device=device)

    sizes = f"N={size.images:,} D={size.dim:,}"
    return [Speed("scale_rows", sizes, inputs, ccfast.scale_rows, lambda x, f: f[:, None] * x)]
