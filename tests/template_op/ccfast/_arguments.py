"""What the new op adds to ``ccfast/_arguments.py``."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ccfast import _checks as checks


def scale_rows(features: Any, factors: Any) -> tuple[Tensor, Tensor]:
    """The checked arguments of :func:`ccfast.scale_rows`."""
    features = checks.matrix("features", features, checks.SINGLE_OR_DOUBLE)
    factors = checks.tensor("factors", factors, 1, checks.SINGLE_OR_DOUBLE)
    checks.same_dtype(features=features, factors=factors)
    checks.same_device(features=features, factors=factors)
    if len(factors) != len(features):
        raise ValueError(f"factors: expected length {len(features)}, one for each row of features, got {len(factors)}")
    return features, factors
