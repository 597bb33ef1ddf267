"""``torch.compiler.disable`` that does not load TorchDynamo: with it ``import ccfast`` would take twice as long."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch

_Function = TypeVar("_Function", bound=Callable[..., Any])

_DISABLED: dict[Callable[..., Any], Callable[..., Any]] = {}


def never_compiled(function: _Function) -> _Function:
    """``function``, which ``torch.compile`` leaves as it is: its calls are a graph break."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return _form_of(function)(*args, **kwargs)

    return call


def _form_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function itself until something loads TorchDynamo, which ``torch.compile`` and every optimiser do."""
    if "torch._dynamo" not in sys.modules:
        return function
    if function not in _DISABLED:
        _DISABLED[function] = torch.compiler.disable(function)
    return _DISABLED[function]
