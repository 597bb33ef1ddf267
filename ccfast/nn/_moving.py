"""Shared by modules with a bank: when it is updated, and the precision of its loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ccfast import _checks as checks
from ccfast._never_compiled import never_compiled
from ccfast.nn._recomputation import once

#: When a bank is updated: in the forward pass of a training step, or in its backward pass, as in the authors' code.
UPDATES = ("forward", "backward")


class MovingModule(nn.Module):
    """A module whose state is updated with its loss; ``update`` says when."""

    def __init__(self, update: str) -> None:
        super().__init__()
        self.update = checks.choice("update", update, UPDATES)

    @never_compiled
    def _step(self, loss_of: Callable[..., Tensor], *inputs: Tensor, targets: Sequence[Tensor] = ()) -> Tensor:
        """``loss_of(moving, *inputs)``, whose backward pass updates the state if ``moving``.

        ``targets`` are the other tensors of the call, such as labels. Together with the inputs they identify the call
        (:func:`once`).

        With "forward", in training mode with gradients enabled, this function runs the backward pass immediately and
        keeps the gradients for later. So the state is updated once, and no copy of it is needed.
        """
        checks.choice("update", self.update, UPDATES)
        call = (*inputs, *targets)
        with torch.autocast(inputs[0].device.type, enabled=False):
            if self.update == "backward":
                return once(self, call, lambda _: loss_of(True, *inputs))
            if not (self.training and torch.is_grad_enabled()):
                return loss_of(False, *inputs)
            return once(self, call, lambda moving: _loss_now(loss_of, moving, inputs))


def _loss_now(loss_of: Callable[..., Tensor], moving: bool, inputs: tuple[Tensor, ...]) -> Tensor:
    """The loss, with its backward pass run immediately."""
    leaves = [value.detach().requires_grad_() for value in inputs]
    loss = loss_of(moving, *leaves)
    return _Ready.apply(loss.detach(), torch.autograd.grad(loss, leaves), *inputs)


class _Ready(torch.autograd.Function):
    """A loss whose gradients with respect to the inputs are already known."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: tuple[Tensor, ...], *inputs: Tensor) -> Tensor:
        ctx.save_for_backward(*gradients)
        return loss.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *[gradient * upstream for gradient in ctx.saved_tensors]


class _Then(torch.autograd.Function):
    """The unchanged inputs; their backward pass ends with a call."""

    @staticmethod
    def forward(ctx: Any, then: Callable[[], None], *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.then = then
        return tuple(value.view_as(value) for value in inputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        ctx.then()
        return None, *upstream


def afterwards(then: Callable[[], None] | None, *inputs: Tensor) -> tuple[Tensor, ...]:
    """The inputs; ``then()`` is called after the backward pass through everything computed from them."""
    return inputs if then is None else _Then.apply(then, *inputs)


def wide(inputs: Tensor, normalize: bool) -> Tensor:
    """The rows in float64 for float64, else in float32, divided by their norm if ``normalize``."""
    rows = inputs.to(torch.float64 if inputs.dtype is torch.float64 else torch.float32)
    return F.normalize(rows, dim=-1) if normalize else rows


def resize_as_saved(module: nn.Module, names: Sequence[str], state_dict: dict[str, Any], prefix: str) -> None:
    """Give the buffers ``names``, whose length depends on the epoch, the shapes that they have in a state dict."""
    for name in names:
        if prefix + name in state_dict:
            setattr(module, name, getattr(module, name).new_empty(state_dict[prefix + name].shape))


def batch_of(inputs: Any, targets: Any, bank: Tensor, name: str = "targets") -> tuple[Tensor, Tensor]:
    """Checked ``[B, D]`` inputs, with the same number of columns as the bank, and ``[B]`` labels."""
    inputs = checks.matrix("inputs", inputs, checks.ANY_FLOAT)
    labels = checks.vector_of_integers(name, targets, inputs.shape[0], "inputs")
    checks.same_columns(inputs=inputs, features=bank)
    checks.same_device(inputs=inputs, **{name: labels}, features=bank)
    return inputs, labels


def checked_loss(loss: Tensor, **inputs: Tensor) -> Tensor:
    """The loss; on a CPU, if an input makes it non-finite, a ValueError that names the input."""
    if loss.device.type == "cpu" and not torch.isfinite(loss):
        for name, value in inputs.items():
            checks.finite_rows(name, value.detach().flatten(0, -2))
    return loss
