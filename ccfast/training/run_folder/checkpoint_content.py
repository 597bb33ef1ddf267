"""Checks of a checkpoint's content: entries of wrong types are an error here, and not later when they are used."""

from __future__ import annotations

import math
from types import NoneType
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from ccfast.models.weights import unusable
from ccfast.training.run_folder.records import LARGEST_EPOCH


class Wrong(ValueError):
    """The error in a checkpoint, as a text."""


def check_content(content: Any) -> None:
    """Raise :class:`Wrong` unless ``content`` has config, epoch and model, as every checkpoint must."""
    if not isinstance(content, dict) or not {"config", "epoch", "model"} <= content.keys():
        raise Wrong("not a checkpoint of ccfast train")
    _check_names("config", content["config"])
    _check_epoch(content["epoch"], content["config"].get("epochs"))
    check_weights("model", content["model"])
    best = content.get("best", {})
    _check_names("best", best)
    if not all(_is_number(value) and math.isfinite(value) for value in best.values()):
        raise Wrong(f"its best does not consist of numbers: {_told(best)}")
    if best and not {"epoch", "mAP"} <= best.keys():
        raise Wrong(f"its best has no epoch and mAP: {_told(best)}")


def check_weights(what: str, found: Any) -> None:
    """Raise :class:`Wrong` unless ``found``, the entry ``what``, can be the weights of an encoder."""
    _check_names(what, found)
    if not found:
        raise Wrong(f"its {what} is empty")
    for name, value in found.items():
        if reason := unusable(value):
            raise Wrong(f"its {what} cannot be loaded: {name} {reason}")


def check_state(content: dict[str, Any], optimizer: dict[str, Any], scheduler: dict[str, Any]) -> None:
    """Raise :class:`Wrong` unless a run can resume from ``content``, which has passed :func:`check_content`.

    ``optimizer`` and ``scheduler``: the states of a new run, whose types the content must have.
    """
    missing = {"optimizer", "scheduler", "random", "best", "first_clusters"} - content.keys()
    if missing:
        raise Wrong(f"it has no {', '.join(sorted(missing))}")
    clusters = content["first_clusters"]
    if clusters is not None and (not _is_integer(clusters) or clusters < 0):
        raise Wrong(f"its first_clusters is {_told(clusters)}")
    labels = content.get("labels")
    if labels is not None and not (isinstance(labels, Tensor) and labels.dtype is torch.int64 and labels.dim() == 1):
        raise Wrong("its labels are not a vector of integers")
    states = content["random"]
    if not isinstance(states, list | tuple) or not states or not all(isinstance(state, dict) for state in states):
        raise Wrong(f"its random is {_told(states)}, not the states of each process")
    _check_like("scheduler", content["scheduler"], scheduler)
    if content["scheduler"].get("last_epoch") != content["epoch"]:
        raise Wrong(
            f"its scheduler is at epoch {_told(content['scheduler'].get('last_epoch'))}, not {content['epoch']}"
        )
    _check_optimizer(content["optimizer"], optimizer)


def check_plain(what: str, value: Any) -> None:
    """Raise :class:`Wrong` unless ``value`` consists of tensors and plain values in tables, which can be read back."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str | int):
                raise Wrong(f"{what}: expected text or integers as keys, got a {type(key).__name__}")
            check_plain(f"{what}[{key!r}]", item)
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            check_plain(f"{what}[{place}]", item)
    elif type(value) not in (Tensor, Parameter, bool, int, float, str, bytes, NoneType):
        raise Wrong(f"{what}: expected tensors and plain values, got a {type(value).__name__}")


def check_moments(state: dict[Any, dict[str, Any]], kept: tuple[str, ...]) -> None:
    """Raise :class:`Wrong` unless an optimiser's ``state`` has the tensors ``kept`` in the parameters' shapes."""
    for parameter, moments in state.items():
        for name in kept:
            value = moments.get(name)
            if not isinstance(value, Tensor) or value.shape != parameter.shape:
                raise Wrong(f"its optimizer's {name} does not fit a parameter of shape {list(parameter.shape)}")
            if not value.isfinite().all():
                raise Wrong(f"its optimizer's {name} has values that are not finite")
        step = moments.get("step", 0)
        if not isinstance(step, Tensor | float | int) or (isinstance(step, Tensor) and step.numel() != 1):
            raise Wrong(f"its optimizer's step is {_told(step)}")


def _check_optimizer(found: Any, own: dict[str, Any]) -> None:
    _check_names("optimizer", found)
    if not isinstance(found.get("state"), dict) or not isinstance(found.get("param_groups"), list):
        raise Wrong("its optimizer has no state and param_groups")
    if len(found["param_groups"]) != len(own["param_groups"]):
        raise Wrong(f"its optimizer has {len(found['param_groups'])} param_groups, expected {len(own['param_groups'])}")
    for group, expected in zip(found["param_groups"], own["param_groups"], strict=True):
        _check_names("optimizer's param_groups", group)
        if "lr" not in group or "params" not in group:
            raise Wrong("its optimizer's param_groups have no lr and params")
        numbers = {name: value for name, value in expected.items() if _is_number(value) or isinstance(value, tuple)}
        _check_like("optimizer's param_groups", group, numbers)
    if not all(isinstance(moments, dict) for moments in found["state"].values()):
        raise Wrong("its optimizer's state is not one table per parameter")


def _check_epoch(epoch: Any, epochs: Any) -> None:
    last = epochs if _is_integer(epochs) and epochs > 0 else LARGEST_EPOCH
    if not _is_integer(epoch) or not 0 <= epoch <= last:
        raise Wrong(f"its epoch is {_told(epoch)}, expected 0 to {last}")


def _check_names(what: str, found: Any) -> None:
    """``found`` is a table by names."""
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise Wrong(f"its {what} is {_told(found)}, not a table by names")


def _check_like(what: str, found: Any, expected: dict[str, Any]) -> None:
    """Check the entries of ``found`` that ``expected`` has: numbers, or sequences of numbers of the same length."""
    _check_names(what, found)
    for name, own in expected.items():
        if name not in found:
            continue
        value = found[name]
        if isinstance(own, list | tuple):
            right = isinstance(value, list | tuple) and len(value) == len(own) and all(map(_is_finite, value))
        elif isinstance(own, bool):
            right = isinstance(value, bool)
        else:
            right = not _is_number(own) or _is_finite(value)
        if not right:
            raise Wrong(f"its {what} has {_told(value)} for {name}, expected a value such as {own}")


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return _is_number(value) and (isinstance(value, int) or math.isfinite(value))


def _told(value: Any) -> str:
    """A value in a few words."""
    if isinstance(value, int) and value.bit_length() > 200:
        return "an integer of hundreds of digits" if value > 0 else "a negative integer of hundreds of digits"
    if isinstance(value, int | float | str | None):
        return repr(value)[:60]
    return f"a {type(value).__name__}"
