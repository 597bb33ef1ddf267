"""``ccfast evaluate``."""

from __future__ import annotations

import argparse
from typing import Any

HELP = "mAP and CMC of a run's best encoder, or of a checkpoint"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    from ccfast.commands._options import add_dataset, add_ignore_cameras, add_images_and_device, add_trained, group

    parser.description = (
        "Print mAP and CMC of a run's best encoder, or of a checkpoint, on the run's data set or on another one. Also "
        "print how well one threshold on the cosine similarity separates pairs of the same identity from other pairs: "
        "ROC AUC, and the true positive rate and threshold at false positive rates of 1e-2, 1e-3 and 1e-4."
    )
    add_trained(parser)
    reranking = group(parser, "re-ranking")
    reranking.add_argument("--rerank", action="store_true", help="rank by k-reciprocal re-ranking")
    reranking.add_argument("--rerank-k1", type=int, metavar="K", help="its k1 (default: 20, or all images but one)")
    reranking.add_argument("--rerank-k2", type=int, metavar="K", help="its k2, at most k1 (default: 6, or k1)")
    reranking.add_argument("--rerank-lambda", type=float, metavar="L", help="its lambda, in [0, 1] (default: 0.3)")
    add_dataset(parser)
    add_ignore_cameras(parser)
    add_images_and_device(parser)


def run(options: dict[str, Any]) -> None:
    """Evaluate a checkpoint."""
    from ccfast.commands.evaluate.measure import evaluate_checkpoint

    evaluate_checkpoint(**options)
