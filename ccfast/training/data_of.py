"""The data set that a configuration names."""

from __future__ import annotations

from ccfast.data import ReIDData, load_data
from ccfast.training.config import TrainConfig


def data_of(config: TrainConfig) -> ReIDData:
    """The data set that ``config`` names, read as it says."""
    return load_data(
        config.dataset,
        config.data_dir,
        bad_images=config.bad_images,
        workers=config.workers,
        max_image_pixels=config.max_image_pixels,
    )
