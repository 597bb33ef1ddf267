"""``ccfast evaluate``: mAP and CMC of a trained encoder."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ccfast._errors import InputError
from ccfast.data import load_data
from ccfast.training import report
from ccfast.training.checkpoint import load, load_model
from ccfast.training.config import from_stored
from ccfast.training.device import choose_device
from ccfast.training.evaluate import evaluate
from ccfast.training.extract import extract
from ccfast.training.loop import make_encoder
from ccfast.training.run_folder import RunFolder

log = logging.getLogger(__name__)


def evaluate_checkpoint(path: str, *, rerank: bool = False, **overrides: Any) -> dict[str, float]:
    """The ranking metrics of a run's best encoder, or of a checkpoint, on the run's data set.

    ``overrides``: the run's ``data_dir``, ``device`` and ``workers`` where another one is given.
    """
    file = _checkpoint_file(Path(path))
    content = load(file)
    given = {name: value for name, value in overrides.items() if value is not None}
    config = from_stored(content["config"], str(file), **{"device": None, **given})
    device = choose_device(config.device)
    data = load_data(config.dataset, config.data_dir, bad_images=config.bad_images, workers=config.workers)
    if data.query is None or data.gallery is None:
        raise InputError(f"{config.data_dir}: has no query and gallery to evaluate on")
    encoder = make_encoder(config, data.channels, weights="none")
    load_model(encoder, content, file)
    encoder.to(device)
    view = data.make_views(encoder).plain
    features = [
        extract(encoder, part.images, view, batch_size=config.batch_size, workers=config.workers, device=device)
        for part in (data.query, data.gallery)
    ]
    metrics = evaluate(data.query, data.gallery, *features, rerank=rerank)
    log.info("%s (epoch %d)%s: %s", file, content["epoch"], ", re-ranked" if rerank else "", report.ranking(metrics))
    return metrics


def _checkpoint_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    folder = RunFolder(path)
    file = next((file for file in (folder.best, folder.checkpoint) if file.exists()), None)
    if file is None:
        raise InputError(f"{path}: not a run folder: it holds neither best.pt nor checkpoint.pt")
    return file
