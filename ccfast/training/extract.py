"""Step 1 of an epoch: one feature per image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ccfast._errors import RunError
from ccfast._progress import progress
from ccfast.data.loader import plain_loader
from ccfast.models import Encoder
from ccfast.training.group import ALONE, Group


@torch.no_grad()
def extract(
    encoder: Encoder,
    images: Sequence[Any],
    view: Callable[[Any], Tensor],
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
    group: Group = ALONE,
    title: str = "extract",
) -> Tensor:
    """Features [N, D] float32 of unit norm, in the order of ``images``; the encoder is left in evaluation mode.

    With several processes in ``group`` each takes a slice of the images, and all get all features.
    """
    encoder.eval()
    rows = range(len(images))[group.slice_of(len(images))]
    loader = plain_loader(images, view, rows, batch_size=batch_size, workers=workers, device=device)
    batches = progress(loader, title, len(loader))
    own = [encoder(batch.to(device, non_blocking=True)).float() for batch in batches]
    features = group.gather(torch.cat([torch.empty(0, encoder.num_features, device=device), *own]), len(images))
    if not features.isfinite().all():
        raise RunError("the encoder gives features that are not finite: the run has diverged; try a smaller --lr")
    return features
