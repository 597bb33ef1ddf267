"""``ccfast evaluate``."""

from __future__ import annotations

import argparse
from typing import Any

HELP = "mAP and CMC of a run's best encoder, or of a checkpoint"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("path", metavar="RUN_OR_CHECKPOINT", help="a run folder (its best.pt is taken) or a .pt file")
    parser.add_argument("--rerank", action="store_true", help="k-reciprocal re-ranking of the gallery first")
    parser.add_argument("--data-dir", help="folder of the images (default: the run's)")
    parser.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")
    parser.add_argument("--workers", type=int, help="processes that load images (default: the run's)")


def run(options: dict[str, Any]) -> None:
    """Evaluate a checkpoint."""
    from ccfast.training.allocator import keep_freed_memory
    from ccfast.training.evaluate_checkpoint import evaluate_checkpoint

    keep_freed_memory()
    evaluate_checkpoint(**options)
