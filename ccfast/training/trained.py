"""A trained encoder from its run folder or checkpoint, with the options and the data set of its training."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ccfast._errors import InputError
from ccfast.data import Part, ReIDData
from ccfast.data.any_image import AnyImage
from ccfast.data.image_list import load_images
from ccfast.inference.image_encoder import ImageEncoder
from ccfast.models import Encoder
from ccfast.training.config import FIELDS, TrainConfig
from ccfast.training.config_file import from_stored
from ccfast.training.data_of import data_of
from ccfast.training.device import choose_device
from ccfast.training.extract import extract_shard
from ccfast.training.loop import make_encoder
from ccfast.training.precision import Precision
from ccfast.training.recipes import BUILT_IN
from ccfast.training.run_folder.checkpoint import load, load_model
from ccfast.training.run_folder.folder import checkpoint_file


@dataclass(frozen=True)
class Trained:
    """The result of :func:`load_trained`: ``encoder`` is on ``device``, in evaluation mode.

    The checkpoint ``file`` was written after ``epoch``. ``trained_on`` is the data set of its run; ``config`` has the
    data set that is used now.
    """

    file: Path
    epoch: int
    config: TrainConfig
    encoder: Encoder
    device: torch.device
    trained_on: str
    read: ReIDData | None = None

    @cached_property
    def data(self) -> ReIDData:
        """The data set of ``config``: ``read``, or loaded now; without cameras if ``config`` ignores them."""
        config, channels = self.config, self.encoder.input_mean.shape[0]
        data = data_of(config) if self.read is None else self.read
        if data.channels not in (1, channels):  # one channel is repeated
            raise InputError(
                f"--dataset {data.name}: its images have {data.channels} channels, and the encoder of {self.file} "
                f"takes {channels}"
            )
        return data.ignoring_cameras() if config.ignore_cameras else data

    @cached_property
    def view(self) -> AnyImage:
        """The transforms of the encoder's training, for any data set of ``config``."""
        return AnyImage(self.encoder, self.trained_on, self.config.max_image_pixels)

    def image_encoder(self) -> ImageEncoder:
        """The encoder for images in any form."""
        precision = Precision(self.config.amp, self.device)
        return ImageEncoder(
            self.encoder, self.view, device=self.device, precision=precision, batch_size=self.config.batch_size
        )

    def part(self, name: str) -> Part:
        """The data set's part ``name``.

        Raises:
            InputError: it has none.
        """
        found: Part | None = getattr(self.data, name)
        if found is None or not len(found):
            raise InputError(f"--part {name}: {self.data.name} has no such images")
        return found

    def read_images(self, option: str, path: str | Path) -> Part:
        """All images in the folder ``path`` and its sub-folders, or the file ``path``, given by ``option``."""
        config = self.config
        return load_images(
            option, path, bad_images=config.bad_images, workers=config.workers, max_image_pixels=config.max_image_pixels
        )

    def extract(self, part: Part, title: str = "extract") -> Tensor:
        """Features of a part's images, [N, D] of unit norm, on ``device``, in the run's precision."""
        return extract_shard(self.encoder, part.images, self.view, self.config, title=title).gathered()


def load_trained(path: str | os.PathLike[str], *, data: ReIDData | None = None, **overrides: Any) -> Trained:
    """The encoder of a run folder (its best.pt, or else its checkpoint.pt) or of a checkpoint.

    Args:
        data: the data set, if the caller has loaded it.
        overrides: other values for the run's options (``data_dir``, ``dataset``, ``device``, ``workers``,
            ``ignore_cameras``); None keeps the run's value, but for ``device`` it means this machine's default.

    Raises:
        InputError: no checkpoint, a damaged one, or an architecture that cannot be built.
    """
    file = checkpoint_file(os.fspath(path))
    content = load(file)
    given = {name: value for name, value in overrides.items() if value is not None}
    dataset = given.get("dataset")
    trained_on = content["config"].get("dataset", FIELDS["dataset"].default)
    if dataset not in (None, trained_on, *BUILT_IN) and "data_dir" not in given:
        raise InputError(
            f"--data-dir: expected the folder of {dataset!r}, got none; the run's folder is for {trained_on!r}"
        )
    config = from_stored(content["config"], str(file), **{"device": None, **given})
    device = choose_device(config.device)
    try:
        encoder = make_encoder(config, _channels(content), weights="none")
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    load_model(encoder, content, file)
    return Trained(file, int(content["epoch"]), config, encoder.to(device).eval(), device, trained_on, data)


def _channels(content: dict[str, Any]) -> int:
    """The number of channels of the checkpoint's encoder."""
    mean = content["model"].get("input_mean")
    if not isinstance(mean, Tensor) or mean.dim() != 3:
        raise InputError("not a checkpoint of ccfast: its model has no input_mean [channels, 1, 1]")
    return mean.shape[0]


def from_weights(config: TrainConfig) -> Trained:
    """An encoder without a run: the architecture and the weights of ``config``.

    Raises:
        InputError: no such architecture, or weights that do not fit it.
    """
    device = choose_device(config.device)
    encoder = make_encoder(config, 3, config.weights).to(device).eval()
    return Trained(Path(config.weights), 0, config, encoder, device, config.dataset)
