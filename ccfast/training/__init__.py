"""Training without labels by Cluster Contrast: a thin loop around ccfast's ops."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccfast.training.config import TrainConfig

if TYPE_CHECKING:
    from ccfast.training.loop import TrainResult, train

__all__ = ["TrainConfig", "TrainResult", "train"]


def __getattr__(name: str) -> object:
    """``train`` and ``TrainResult``, imported on first use, because the options need no torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ccfast.training import loop

    return getattr(loop, name)
