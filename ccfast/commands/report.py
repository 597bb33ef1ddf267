"""``ccfast report``."""

from __future__ import annotations

import argparse
from typing import Any

HELP = "one HTML page about a run: curves, ranked lists, clusters"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    from ccfast.commands._options import add_ignore_cameras, add_where

    parser.description = "Write one HTML page about a run, with its images inside it: to open, send or keep."
    parser.add_argument("run", metavar="RUN", help="a run folder (its best.pt is taken, else its checkpoint.pt)")
    parser.add_argument("-o", "--output", metavar="PAGE.html", help="where the page goes (default: RUN/report.html)")
    parser.add_argument("--queries", type=int, metavar="N", help="how many ranked lists to show (default: 12)")
    parser.add_argument(
        "--compare", dest="compare_with", metavar="RUN", help="another run: its results and options beside this one's"
    )
    add_ignore_cameras(parser)
    add_where(parser)


def run(options: dict[str, Any]) -> None:
    """Write the page."""
    from ccfast.report import write_report

    write_report(**options)
