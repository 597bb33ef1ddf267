"""``ccfast report``."""

from __future__ import annotations

import argparse
from typing import Any

HELP = "write one HTML page about a run: curves, ranked lists, clusters"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    from ccfast.commands._options import add_ignore_cameras, add_images_and_device

    parser.description = "Write one HTML page about a run. It contains all images, so you can send or keep it."
    parser.add_argument("run", metavar="RUN", help="a run folder (uses its best.pt, or else its checkpoint.pt)")
    parser.add_argument("-o", "--output", metavar="PAGE.html", help="file to write (default: RUN/report.html)")
    parser.add_argument("--queries", type=int, metavar="N", help="number of ranked lists (default: 12)")
    parser.add_argument(
        "--compare", dest="compare_with", metavar="RUN", help="another run, to compare results and options with"
    )
    add_ignore_cameras(parser)
    add_images_and_device(parser)


def run(options: dict[str, Any]) -> None:
    """Write the page."""
    from ccfast.report import write_report

    write_report(**options)
