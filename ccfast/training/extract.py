"""Step 1 of an epoch: one feature per image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ccfast._allocator import keep_freed_memory
from ccfast._errors import RunError
from ccfast._progress import progress
from ccfast.data.loader import plain_loader
from ccfast.models import Encoder
from ccfast.training.config import TrainConfig
from ccfast.training.group import ALONE, Group
from ccfast.training.precision import Precision
from ccfast.training.shard import Shard


@torch.no_grad()
def extract_shard(
    encoder: Encoder,
    images: Sequence[Any],
    view: Callable[[Any], Tensor],
    config: TrainConfig,
    group: Group = ALONE,
    title: str = "extract",
) -> Shard:
    """Features [N, D] float32 of unit norm, in the order of ``images``; the encoder stays in evaluation mode.

    Each process of the ``group`` takes a slice of the images and keeps its features; ``.gathered()`` gives all of them.
    ``config`` has the batch size, the number of loading processes and the precision. ``view`` is not applied to images
    in a cache, which are already plain views.
    """
    keep_freed_memory()
    encoder.eval()
    batch_size, device = config.batch_size, encoder.input_mean.device
    precision = Precision(config.amp, device)
    rows = range(len(images))[group.slice_of(len(images))]
    loader = plain_loader(images, view, rows, batch_size=batch_size, workers=config.workers, device=device)
    batches = progress(loader, title, len(loader))
    own = torch.empty(len(rows), encoder.num_features, dtype=torch.float32, device=device)
    done = 0
    for batch in batches:
        # The last batch may be smaller; it runs without torch.compile, which would compile again for its size.
        encode = encoder if len(batch) == batch_size else encoder.forward
        own[done : done + len(batch)] = precision(encode, batch.to(device, non_blocking=True))
        done += len(batch)
    if not all(group.collect(bool(own.isfinite().all()))):
        raise RunError("the encoder's features are not finite: the run has diverged; try a smaller --lr")
    return Shard(own, len(images), group)
