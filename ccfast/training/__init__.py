"""Training without labels by Cluster Contrast: a thin loop around ccfast's ops."""

from __future__ import annotations

from ccfast.training.config import TrainConfig
from ccfast.training.loop import TrainResult, train

__all__ = ["TrainConfig", "TrainResult", "train"]
