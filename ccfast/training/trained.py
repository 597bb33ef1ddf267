"""A trained encoder from its run folder or checkpoint, with the options and the data set that it was trained with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ccfast._errors import InputError
from ccfast.data import Part, ReIDData
from ccfast.models import Encoder
from ccfast.training.checkpoint import load, load_model
from ccfast.training.config import TrainConfig
from ccfast.training.config_file import from_stored
from ccfast.training.data_of import data_of
from ccfast.training.device import choose_device
from ccfast.training.extract import extract
from ccfast.training.loop import make_encoder
from ccfast.training.precision import Precision
from ccfast.training.run_folder import checkpoint_file


@dataclass(frozen=True)
class Trained:
    """What :func:`load_trained` found: ``encoder`` is on ``device``, in evaluation mode.

    ``epoch`` is the one that the checkpoint ``file`` was written after.
    """

    file: Path
    epoch: int
    config: TrainConfig
    encoder: Encoder
    device: torch.device
    read: ReIDData | None = None

    @cached_property
    def data(self) -> ReIDData:
        """The data set that ``config`` names: ``read``, or read now; with no cameras to rank by if it says so."""
        config, channels = self.config, self.encoder.input_mean.shape[0]
        data = data_of(config) if self.read is None else self.read
        if data.channels not in (1, channels):  # one channel is repeated
            raise InputError(
                f"--dataset {data.name}: its images have {data.channels} channels, and the encoder of {self.file} "
                f"takes {channels}"
            )
        return data.ignoring_cameras() if config.ignore_cameras else data

    def extract(self, part: Part, title: str = "extract") -> Tensor:
        """Features of a part's images, [N, D] of unit norm, on ``device``, in the precision that the run had."""
        config = self.config
        view = self.data.make_views(self.encoder).plain
        return extract(
            self.encoder,
            part.images,
            view,
            batch_size=config.batch_size,
            workers=config.workers,
            device=self.device,
            precision=Precision(config.amp, self.device),
            title=title,
        )


def load_trained(path: str | Path, *, data: ReIDData | None = None, **overrides: Any) -> Trained:
    """The encoder of a run folder (its best.pt, else its checkpoint.pt) or of a checkpoint.

    Args:
        data: the data set, where the caller has read it.
        overrides: the run's options where another value is given (``data_dir``, ``dataset``, ``device``, ``workers``,
            ``ignore_cameras``);
            None leaves the run's own, but for ``device``, whose default is that of this machine.

    Raises:
        InputError: no checkpoint, a broken one, or one of an architecture that cannot be built here.
    """
    file = checkpoint_file(path)
    content = load(file)
    given = {name: value for name, value in overrides.items() if value is not None}
    config = from_stored(content["config"], str(file), **{"device": None, **given})
    device = choose_device(config.device)
    try:
        encoder = make_encoder(config, _channels(content), weights="none")
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    load_model(encoder, content, file)
    return Trained(file, int(content["epoch"]), config, encoder.to(device).eval(), device, data)


def _channels(content: dict[str, Any]) -> int:
    """How many channels the checkpoint's encoder takes."""
    mean = content["model"].get("input_mean")
    if not isinstance(mean, Tensor) or mean.dim() != 3:
        raise InputError("not a checkpoint of ccfast: its model has no input_mean [channels, 1, 1]")
    return mean.shape[0]
