"""``ccfast evaluate``: mAP and CMC of a trained encoder."""

from __future__ import annotations

import logging
from typing import Any

from ccfast._errors import InputError
from ccfast.training import messages
from ccfast.training.evaluate import evaluate
from ccfast.training.trained import load_trained

log = logging.getLogger(__name__)


def evaluate_checkpoint(path: str, *, rerank: bool = False, **overrides: Any) -> dict[str, float]:
    """The ranking metrics of a run's best encoder, or of a checkpoint, on the run's data set.

    ``overrides``: the run's ``data_dir``, ``device`` and ``workers`` where another one is given.
    """
    trained = load_trained(path, **overrides)
    query, gallery = trained.data.query, trained.data.gallery
    if query is None or gallery is None:
        raise InputError(f"{trained.config.data_dir}: has no query and gallery to evaluate on")
    features = (trained.extract(query, "query"), trained.extract(gallery, "gallery"))
    metrics = evaluate(trained.data, *features, rerank=rerank)
    suffix = ", re-ranked" if rerank else ""
    log.info("%s (epoch %d)%s: %s", trained.file, trained.epoch, suffix, messages.ranking(metrics))
    return metrics
