"""``--init``: start with the encoder of another run, with or without labels, on this data set or another one."""

from __future__ import annotations

import logging

from ccfast._errors import InputError
from ccfast.models import Encoder, resize
from ccfast.training.config import TrainConfig, flag, shortened
from ccfast.training.run_folder.checkpoint import load, load_model
from ccfast.training.run_folder.folder import checkpoint_file

log = logging.getLogger(__name__)

#: The options that determine the parameters of an encoder.
ARCHITECTURE = ("arch", "pooling", "projection")


def init_encoder(encoder: Encoder, config: TrainConfig) -> None:
    """Load the encoder of the run folder or checkpoint ``config.init`` into ``encoder``, which ``config`` describes.

    If that run had another image size, a transformer's position embeddings are interpolated. ``encoder`` is still on
    the CPU.

    Raises:
        InputError: not a checkpoint of ccfast, or another architecture.
    """
    assert config.init is not None
    try:
        file = checkpoint_file(config.init)
        content = load(file)
        differences = [
            f"{flag(name)} {shortened(content['config'][name])} (this run: {getattr(config, name)})"
            for name in ARCHITECTURE
            if content["config"].get(name, getattr(config, name)) != getattr(config, name)
        ]
        if differences:
            raise InputError(f"{file} has another encoder: {', '.join(differences)}; pass the same options")
        own_size = encoder.height, encoder.width
        trained_size = tuple(
            content["config"].get(name, own) for name, own in zip(("height", "width"), own_size, strict=True)
        )
        if not all(isinstance(side, int) and 0 < side < 2**16 for side in trained_size):
            raise InputError(f"{file}: its config has no height and width: {shortened(trained_size)}")
        resize(encoder.backbone, trained_size)
        load_model(encoder, content, file)
        resize(encoder.backbone, own_size)
    except InputError as error:
        raise InputError(f"--init: {error}") from error
    log.info("encoder of %s (%s, epoch %d)", file, content["config"].get("dataset"), content["epoch"])
