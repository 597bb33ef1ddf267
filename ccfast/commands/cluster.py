"""``ccfast cluster``."""

from __future__ import annotations

import argparse
from typing import Any

HELP = "cluster the rows of a .npy file"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    from ccfast.commands._options import PUBLISHED, add_fields

    parser.description = "Cluster the rows of a .npy file [N, D] of unit norm; writes labels [N], -1 for noise."
    parser.add_argument("features", metavar="FEATURES.npy")
    parser.add_argument("-o", "--output", required=True, metavar="LABELS.npy", help="where the labels go")
    parser.add_argument("--normalize", action="store_true", help="scale the rows to unit norm first")
    parser.add_argument(
        "--memory-limit",
        metavar="SIZE",
        help="cluster by blocks in at most so much memory, such as 800M or 4G; a second start goes on with what the "
        "first has finished",
    )
    parser.add_argument(
        "--work-dir", metavar="DIR", help="where --memory-limit keeps its files (default: LABELS.npy.work)"
    )
    names = ("cluster", "eps", "k1", "k2", "min_samples", "min_similarity", "min_cluster_size", "neighbours",
             "faiss_index", "faiss_search", "device")  # fmt: skip
    add_fields(parser, names, PUBLISHED)


def run(options: dict[str, Any]) -> None:
    """Cluster a file."""
    from ccfast.training.cluster_file import cluster_file

    cluster_file(**options)
