"""The data set of a configuration."""

from __future__ import annotations

from ccfast.data import ReIDData, load_data
from ccfast.training.config import TrainConfig


def data_of(config: TrainConfig) -> ReIDData:
    """Load the data set of ``config`` with its options."""
    return load_data(
        config.dataset,
        config.data_dir,
        bad_images=config.bad_images,
        workers=config.workers,
        max_image_pixels=config.max_image_pixels,
    )
