"""``--init``: begin with the encoder of another run, trained with labels or without, on this data set or another."""

from __future__ import annotations

import logging

from ccfast._errors import InputError
from ccfast.models import Encoder, resize
from ccfast.training.config import TrainConfig, flag, shortened
from ccfast.training.run_folder.checkpoint import load, load_model
from ccfast.training.run_folder.folder import checkpoint_file

log = logging.getLogger(__name__)

#: The options that decide which parameters an encoder has.
ARCHITECTURE = ("arch", "pooling", "projection")


def init_encoder(encoder: Encoder, config: TrainConfig) -> None:
    """Load the encoder of the run folder or checkpoint ``config.init`` into ``encoder``, which ``config`` describes.

    Where that run had images of another size, a transformer's position embeddings are interpolated to this one's.
    ``encoder`` is on the CPU still.

    Raises:
        InputError: no checkpoint of ccfast, or one of another architecture.
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
            raise InputError(f"{file} holds another encoder: {', '.join(differences)}; pass the same options")
        here = encoder.height, encoder.width
        there = tuple(content["config"].get(name, own) for name, own in zip(("height", "width"), here, strict=True))
        if not all(isinstance(side, int) and 0 < side < 2**16 for side in there):
            raise InputError(f"{file}: its config has no height and width: {shortened(there)}")
        resize(encoder.backbone, there)
        load_model(encoder, content, file)
        resize(encoder.backbone, here)
    except InputError as error:
        raise InputError(f"--init: {error}") from error
    log.info("encoder of %s (%s, epoch %d)", file, content["config"].get("dataset"), content["epoch"])
