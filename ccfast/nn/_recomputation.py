"""Modules with a memory under ``torch.utils.checkpoint``, which runs their forward pass a second time in backward."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(eq=False)
class _Call:
    """The arguments and the loss of a forward pass that may be repeated."""

    tensors: tuple[Tensor, ...]
    loss: Tensor

    def has(self, tensors: Sequence[Tensor]) -> bool:
        """Whether the call had these tensors."""
        return len(tensors) == len(self.tensors) and all(map(torch.equal, self.tensors, tensors))


#: The calls of each module that may still be repeated; only the graph of its loss keeps a call alive.
_CALLS: weakref.WeakKeyDictionary[nn.Module, weakref.WeakSet[_Call]] = weakref.WeakKeyDictionary()


def checkpointed() -> bool:
    """Whether a checkpoint with ``use_reentrant=False`` observes the tensors that this code saves for backward."""
    if torch.compiler.is_compiling():
        return False
    # Not public, and not in every release; without it a checkpoint is not noticed.
    hooks_of = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    hooks = hooks_of(True) if hooks_of else None
    return hooks is not None and getattr(hooks[0], "__module__", None) == "torch.utils.checkpoint"


def once(module: nn.Module, tensors: Sequence[Tensor], step: Callable[[bool], Tensor]) -> Tensor:
    """``step(True)``: a loss that also updates the memory; ``step(False)`` if the forward pass is a repetition.

    A checkpoint with ``use_reentrant=False`` runs forward again in backward, for the tensors that it did not keep. By
    then the memory has been updated. So the tensors that the loss saves are hidden from the checkpoint, and a
    repetition returns the first loss and updates nothing. With ``use_reentrant=True`` the first run is under
    ``no_grad``, and the memory is updated in the second run, whose graph is used.

    ``tensors``: all tensors of the call, features and labels; they identify a repetition.
    """
    if not checkpointed():
        return step(True)
    repeated = torch._C._current_graph_task_id() != -1
    with torch.autograd.graph.saved_tensors_hooks(_same, _same):
        loss = step(not repeated)
    calls = _CALLS.setdefault(module, weakref.WeakSet())
    if not repeated:
        _remember(calls, tensors, loss)
        return loss
    for call in list(calls):
        if call.has(tensors):
            loss.detach().copy_(call.loss)
            break
    return loss


def _remember(calls: weakref.WeakSet[_Call], tensors: Sequence[Tensor], loss: Tensor) -> None:
    if loss.grad_fn is None:
        return
    call = _Call(tuple(value.detach().clone() for value in tensors), loss.detach().clone())
    metadata: Any = loss.grad_fn.metadata  # a dict, which torch declares as a method
    metadata[_Call] = call
    calls.add(call)


def _same(value: Any) -> Any:
    return value
