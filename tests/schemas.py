"""The ops that are registered with the dispatcher."""

from __future__ import annotations

import torch

import ccfast  # noqa: F401  (registers the ops)


def ops() -> list[str]:
    """The names of all ops of ccfast."""
    names = torch._C._dispatch_get_all_op_names()
    return sorted(name.removeprefix("ccfast::") for name in names if name.startswith("ccfast::"))


def arguments_of(op: str) -> list[str]:
    """The names of an op's arguments, in the order of its schema."""
    return [argument.name for argument in getattr(torch.ops.ccfast, op).default._schema.arguments]
