"""``ccfast extract``."""

from __future__ import annotations

import argparse
from typing import Any

HELP = "a trained encoder's features of a data set, as a .npy file"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    from ccfast.commands._options import add_dataset, add_trained, add_where

    parser.description = (
        "Write features [N, D] of unit norm to FEATURES.npy, as ccfast cluster takes them, and to FEATURES.csv what "
        "each row is of: path, identity and camera."
    )
    add_trained(parser)
    parser.add_argument("-o", "--output", required=True, metavar="FEATURES.npy", help="where the features go")
    parser.add_argument("--part", choices=("train", "query", "gallery", "all"), help="which images (default: all)")
    add_dataset(parser)
    add_where(parser)


def run(options: dict[str, Any]) -> None:
    """Extract features."""
    from ccfast.commands.extract.features import extract_features

    extract_features(**options)
