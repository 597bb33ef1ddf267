"""``ccfast extract``."""

from __future__ import annotations

import argparse
from typing import Any

HELP = "write a trained encoder's features of a data set to a .npy file"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    from ccfast.commands._options import add_dataset, add_images_and_device, add_trained

    parser.description = (
        "Write features [N, D] of unit norm to FEATURES.npy, for ccfast cluster, and the path, identity and camera of "
        "each row to FEATURES.csv."
    )
    add_trained(parser)
    parser.add_argument("-o", "--output", required=True, metavar="FEATURES.npy", help="file to write")
    parser.add_argument("--part", choices=("train", "query", "gallery", "all"), help="which images (default: all)")
    add_dataset(parser)
    add_images_and_device(parser)


def run(options: dict[str, Any]) -> None:
    """Extract features."""
    from ccfast.commands.extract.features import extract_features

    extract_features(**options)
