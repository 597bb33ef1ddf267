"""Step 5 of an epoch: the iterations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ccfast._errors import RunError
from ccfast.models import Encoder, encode_in_groups
from ccfast.training.group import ALONE, Group
from ccfast.training.precision import Precision

DIVERGED = "the run has diverged (try a smaller --lr or a larger --temperature)"


#: ``criterion(features [B, D], targets [B], indices [B])``: the loss of a batch of images and their labels.
Criterion = Callable[[Tensor, Tensor, Tensor], Tensor]


class InGroups(nn.Module):
    """The encoder of a step: one call for the whole batch, which DistributedDataParallel needs."""

    def __init__(self, encoder: Encoder, bn_group: int) -> None:
        super().__init__()
        self.encoder, self.bn_group = encoder, bn_group

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] to [B, D]."""
        return encode_in_groups(self.encoder, images, self.bn_group)


def checked_loss(loss: Tensor, criterion: Criterion) -> Tensor:
    """The loss that ``criterion`` returned, checked because it may be the user's own."""
    if isinstance(loss, Tensor) and loss.dim() == 0:
        return loss
    got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
    raise RunError(f"{getattr(criterion, '__qualname__', 'criterion')}: expected a scalar tensor, got {got}")


@dataclass(frozen=True)
class Batches:
    """An epoch's batches of ``size`` images, as this process's slices: (images [b, C, H, W], their indices [b])."""

    loader: Iterable[tuple[Tensor, Tensor]]
    size: int


def iterate(
    encoder: Encoder,
    criterion: Criterion,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    labels: Tensor,
    bn_group: int,
    group: Group = ALONE,
    precision: Precision | None = None,
    after_step: Callable[[], None] | None = None,
) -> float:
    """One pass over ``batches``; ``labels`` [N] are the clusters of all images. Returns the mean loss.

    ``precision``: of the encoder's forward pass; None: float32. ``after_step()`` is called after each step.
    """
    device = labels.device
    precision = precision or Precision()
    scaler = precision.scaler
    encode = group.parallel(InGroups(encoder, bn_group), device)
    encoder.train()
    total, count = torch.zeros((), device=device), 0
    for images, indices in batches.loader:
        indices = group.gather(indices.to(device, non_blocking=True), batches.size)
        features = precision(encode, images.to(device, non_blocking=True))
        features = group.gather(features, batches.size)
        try:
            loss = checked_loss(criterion(features, labels[indices], indices), criterion)
        except ValueError as error:  # on the CPU the ops refuse features that are not finite
            if "finite" not in str(error):
                raise
            raise RunError(f"{DIVERGED}: {error}") from error
        optimizer.zero_grad(set_to_none=True)
        # Every process has the loss of the whole batch and the gradient of its slice; DDP averages these gradients.
        scaler.scale(loss * group.size).backward()
        scaler.step(optimizer)
        scaler.update()
        if after_step is not None:
            after_step()
        total, count = total + loss.detach(), count + 1
    mean = float(total) / count
    if not torch.isfinite(total):
        raise RunError(f"{DIVERGED}: the loss became {mean}")
    return mean
