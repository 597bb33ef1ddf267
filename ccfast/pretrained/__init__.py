"""Weights that others have published, under the names of the networks that they are loaded into."""

from __future__ import annotations

from ccfast.pretrained.published import Fitted, fitted, grid_of, unwrapped

__all__ = ["Fitted", "fitted", "grid_of", "unwrapped"]
