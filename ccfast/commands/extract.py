"""``ccfast extract``."""

from __future__ import annotations

import argparse
from typing import Any

HELP = "a trained encoder's features of a data set, as a .npy file"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    from ccfast.training.config import FIELDS

    parser.description = (
        "Write features [N, D] of unit norm to FEATURES.npy, as ccfast cluster takes them, and to FEATURES.csv what "
        "each row is of: path, identity and camera."
    )
    parser.add_argument("path", metavar="RUN_OR_CHECKPOINT", help="a run folder (its best.pt is taken) or a .pt file")
    parser.add_argument("-o", "--output", required=True, metavar="FEATURES.npy", help="where the features go")
    parser.add_argument("--part", choices=("train", "query", "gallery", "all"), help="which images (default: all)")
    datasets = FIELDS["dataset"].metadata["choices"]
    parser.add_argument("--dataset", choices=datasets, metavar="NAME", help="data set (default: the run's)")
    parser.add_argument("--data-dir", help="folder of the images (default: the run's)")
    parser.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")
    parser.add_argument("--workers", type=int, help="processes that load images (default: the run's)")


def run(options: dict[str, Any]) -> None:
    """Extract features."""
    from ccfast.training.allocator import keep_freed_memory
    from ccfast.training.features_file import extract_features

    keep_freed_memory()
    extract_features(**options)
