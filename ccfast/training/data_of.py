"""The data set of a configuration."""

from __future__ import annotations

from ccfast._errors import InputError
from ccfast.data import Part, ReIDData, load_data
from ccfast.training.config import TrainConfig


def data_of(config: TrainConfig) -> ReIDData:
    """Load the data set of ``config`` with its options."""
    return _read(config, config.dataset, config.data_dir)


def source_of(config: TrainConfig, target: ReIDData) -> Part | None:
    """The training part of the labelled data set ``--source`` that ``config`` names, if any.

    Raises:
        InputError: there is no such data set, or its images are of another kind than those of ``target``.
    """
    if config.source is None:
        return None
    try:
        data = _read(config, config.source, config.source_dir)
    except InputError as error:
        words = str(error)  # they name the options of the target
        raise InputError(words.replace("--data-dir", "--source-dir").replace("--dataset", "--source")) from error
    if data.channels != target.channels:
        raise InputError(
            f"--source {config.source}: expected images of {target.channels} channels, as {target.name} has, got "
            f"{data.channels}"
        )
    return data.train


def _read(config: TrainConfig, name: str, folder: str | None) -> ReIDData:
    return load_data(
        name,
        folder,
        bad_images=config.bad_images,
        workers=config.workers,
        max_image_pixels=config.max_image_pixels,
    )
