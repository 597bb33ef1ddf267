"""Optimisers and schedules of the learning rate, by the values of ``--optimizer`` and ``--schedule``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from ccfast.training.config import TrainConfig

#: SGD's momentum (the value of Goyal et al. 2017, and of re-ID code that uses SGD).
MOMENTUM = 0.9

#: Each optimiser, its other arguments, and the state that it keeps for each parameter.
OPTIMIZERS: dict[str, tuple[Callable[..., torch.optim.Optimizer], dict[str, Any], tuple[str, ...]]] = {
    "adam": (torch.optim.Adam, {}, ("exp_avg", "exp_avg_sq")),
    "adamw": (torch.optim.AdamW, {}, ("exp_avg", "exp_avg_sq")),
    "sgd": (torch.optim.SGD, {"momentum": MOMENTUM}, ("momentum_buffer",)),
}


def make_optimizer(encoder: nn.Module, config: TrainConfig, head: nn.Module | None = None) -> torch.optim.Optimizer:
    """``--optimizer`` for the trained parameters; on a GPU in one kernel, which does not wait for fp16's scaler."""
    modules = [encoder] if head is None else [encoder, head]
    learnt = [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]
    kind, settings, _ = OPTIMIZERS[config.optimizer]
    return kind(learnt, lr=config.lr, weight_decay=config.weight_decay, fused=learnt[0].is_cuda, **settings)


def kept_of_each(optimizer: torch.optim.Optimizer) -> tuple[str, ...]:
    """The names of the tensors that an ``optimizer`` keeps for each parameter, with its shape."""
    return next(kept for kind, _, kept in OPTIMIZERS.values() if type(optimizer) is kind)


def make_scheduler(optimizer: torch.optim.Optimizer, config: TrainConfig) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning rate of each epoch, from ``--schedule``, ``--step-size`` and ``--warmup``."""
    if config.schedule == "step" and not config.warmup:
        return torch.optim.lr_scheduler.StepLR(optimizer, config.step_size, gamma=0.1)
    return Schedule(optimizer, config)


class Schedule(torch.optim.lr_scheduler.LRScheduler):
    """The learning rate of an epoch, from its number: it grows in equal steps, then falls in steps or by half a cosine.

    In the first W = ``warmup`` epochs the rate is ``lr`` times 1/W, 2/W, ..., 1. ``step`` multiplies it by
    ``0.1 ** (e // step_size)`` in epoch e. ``cosine`` begins after the warm-up:
    ``lr * (1 + cos(pi * (e - W) / E)) / 2`` for the remaining E epochs, so that the rate would be 0 after the last one
    (Loshchilov and Hutter 2017, eq. 5, without restarts).
    """

    def __init__(self, optimizer: torch.optim.Optimizer, config: TrainConfig) -> None:
        self.cosine, self.step_size = config.schedule == "cosine", config.step_size
        self.warmup, self.epochs = config.warmup, config.epochs
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:
        """The rates of the parameter groups in the next epoch."""
        return [rate * self.factor(self.last_epoch) for rate in self.base_lrs]

    def factor(self, epoch: int) -> float:
        """The factor of ``lr`` in ``epoch``, counted from 0."""
        share = (epoch + 1) / self.warmup if epoch < self.warmup else 1.0
        if not self.cosine:
            return share * 0.1 ** (epoch // self.step_size)
        after, left = max(0, epoch - self.warmup), self.epochs - self.warmup
        return share * (1 + math.cos(math.pi * min(after, left) / left)) / 2
