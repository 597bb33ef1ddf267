"""``ccfast evaluate``: mAP and CMC of a trained encoder."""

from __future__ import annotations

import logging
from typing import Any

from ccfast import _checks as checks
from ccfast._errors import InputError
from ccfast.training import messages
from ccfast.training.evaluate import Reranking, evaluate, obstacles
from ccfast.training.trained import load_trained
from ccfast.training.verification import verify

log = logging.getLogger(__name__)


def evaluate_checkpoint(
    path: str,
    *,
    rerank: bool = False,
    rerank_k1: int | None = None,
    rerank_k2: int | None = None,
    rerank_lambda: float | None = None,
    **overrides: Any,
) -> dict[str, float]:
    """The ranking metrics of a run's best encoder, or of a checkpoint, on the run's data set or on another one.

    The log also says how well one threshold separates same from different pairs
    (:func:`ccfast.training.verification.verify`).

    Args:
        rerank: rank by k-reciprocal re-ranking.
        rerank_k1, rerank_k2, rerank_lambda: its k1, k2 and lambda; None: 20, 6 and 0.3, or less if there are too few
            images.
        overrides: other values for the run's ``dataset``, ``data_dir``, ``device``, ``workers`` and
            ``ignore_cameras``. Images of another data set go through the run's transforms.

    Raises:
        InputError: no data to evaluate on, no query with a match, options out of range.
    """
    reranking = _reranking(rerank, rerank_k1, rerank_k2, rerank_lambda)
    trained = load_trained(path, **overrides)
    data = trained.data
    for protocol, why in obstacles(data).items():
        if protocol in ("", next(iter(data.protocols), "")):
            raise InputError(f"{trained.config.data_dir or data.name}: query and gallery cannot be evaluated: {why}")
        log.warning("%s is left out: %s", protocol, why)
    assert data.query is not None and data.gallery is not None
    features = (trained.extract(data.query, "query"), trained.extract(data.gallery, "gallery"))
    metrics = evaluate(data, *features, rerank=reranking or False)
    suffix = ", re-ranked" if rerank else ""
    log.info("%s (epoch %d)%s: %s", trained.file, trained.epoch, suffix, messages.ranking(metrics))
    found = verify(data, *features)
    if found is not None:
        log.info("%s", messages.verification(found))
    return metrics


def _reranking(rerank: bool, k1: int | None, k2: int | None, lambda_value: float | None) -> Reranking | None:
    given = {"--rerank-k1": k1, "--rerank-k2": k2, "--rerank-lambda": lambda_value}
    if not rerank:
        if named := [name for name, value in given.items() if value is not None]:
            raise InputError(f"{', '.join(named)}: only with --rerank")
        return None
    try:
        for name in ("--rerank-k1", "--rerank-k2"):
            if given[name] is not None:
                checks.integer(name, given[name], low=1)
        lambda_value = 0.3 if lambda_value is None else checks.real("--rerank-lambda", lambda_value, low=0, high=1)
    except (TypeError, ValueError) as error:
        raise InputError(str(error)) from error
    return Reranking(k1, k2, lambda_value)
