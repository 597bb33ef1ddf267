"""Multiplies each row of a matrix by a factor."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ccfast import _arguments as arguments


def scale_rows(features: Any, factors: Any) -> Tensor:
    """As :func:`ccfast.scale_rows`."""
    features, factors = arguments.scale_rows(features, factors)
    return factors[:, None] * features
