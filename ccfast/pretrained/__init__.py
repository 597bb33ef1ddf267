"""Weights published by others, converted to the names of the networks."""

from __future__ import annotations

from ccfast.pretrained.published import Fitted, fitted, grid_of, unwrapped

__all__ = ["Fitted", "fitted", "grid_of", "unwrapped"]
