"""Conversion of the authors' arguments to tensors and arrays, and warnings that are given once."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ccfast import _checks as checks

_said: set[str] = set()


def warn_once(subject: str, message: str) -> None:
    """Warn about ``subject`` once per process: the authors' code calls these functions in every epoch."""
    if subject in _said:
        return
    _said.add(subject)
    depth, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("ccfast."):
        depth, frame = depth + 1, frame.f_back
    warnings.warn(f"{message} This warning is shown once.", UserWarning, stacklevel=depth)


def rows(name: str, value: Any) -> Tensor:
    """``[N, D]`` float32 from a tensor or an array of any floating-point type; the values are not checked."""
    if not isinstance(value, Tensor):
        numbers = array(name, value)
        if numbers.dtype.kind != "f":
            raise TypeError(f"{name}: expected floating-point numbers, got dtype {numbers.dtype}")
        value = torch.from_numpy(numbers.astype(np.float32))
    return checks.matrix(name, value, checks.ANY_FLOAT).detach().float()


def length(name: str, value: Any, rows: int) -> int:
    """The length of a list, which may be larger than the number of ``rows``."""
    return checks.integer(name, value, low=1, high=max(rows, 1_000_000), high_name="a million, or the number of rows")


def array(name: str, value: Any) -> np.ndarray:
    """A NumPy array of ``value``, from any device."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    try:
        return np.asarray(value)
    except ValueError as error:  # nested lists of different lengths
        raise ValueError(f"{name}: expected an array or a tensor, got {type(value).__name__}: {error}") from error


def matrix(name: str, value: Any) -> np.ndarray:
    """A matrix of distances as a float32 or float64 array."""
    result = array(name, value)
    if result.dtype.kind not in "fiu":
        raise TypeError(f"{name}: expected numbers, got dtype {result.dtype}")
    if result.ndim != 2 or result.size == 0:
        raise ValueError(f"{name}: expected a non-empty matrix, got shape {result.shape}")
    if result.dtype.kind == "f":
        return result.astype(np.float32) if result.dtype.itemsize < 4 else result
    return result.astype(np.float64)
