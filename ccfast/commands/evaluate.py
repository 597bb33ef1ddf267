"""``ccfast evaluate``."""

from __future__ import annotations

import argparse
from typing import Any

HELP = "mAP and CMC of a run's best encoder, or of a checkpoint"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    from ccfast.commands._options import add_trained, add_where

    add_trained(parser)
    parser.add_argument("--rerank", action="store_true", help="k-reciprocal re-ranking of the gallery first")
    add_where(parser)


def run(options: dict[str, Any]) -> None:
    """Evaluate a checkpoint."""
    from ccfast.training.allocator import keep_freed_memory
    from ccfast.training.evaluate_checkpoint import evaluate_checkpoint

    keep_freed_memory()
    evaluate_checkpoint(**options)
