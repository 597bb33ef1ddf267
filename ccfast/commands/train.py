"""``ccfast train``."""

from __future__ import annotations

import argparse
from typing import Any

HELP = "train an encoder without labels"


def add_options(parser: argparse.ArgumentParser) -> None:
    """One flag for each field of TrainConfig, a file of them, and a preset."""
    from ccfast.training.config import FIELDS

    parser.description = "Train an encoder without labels. With no option: scikit-learn's digits, about a minute."
    add_recipe(parser, tuple(FIELDS))


def add_recipe(parser: argparse.ArgumentParser, names: tuple[str, ...]) -> None:
    """Flags for the fields ``names``, and where else their values may come from."""
    from ccfast.commands._options import add_fields
    from ccfast.training.recipes import PRESETS, SMALL

    parser.epilog = (
        "The value of an option is the one on the command line, else the one in --config, else that of --preset, else "
        "the default for the data set."
    )
    parser.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        metavar="NAME",
        help=f"a recipe: {SMALL}, for a few thousand images or fewer, or a published one: "
        f"{', '.join(name for name in PRESETS if name != SMALL)}",
    )
    parser.add_argument("--config", metavar="FILE.yaml", help="options from a file, such as a run's config.yaml")
    add_fields(parser, names)


def run(options: dict[str, Any]) -> None:
    """Train, or go on with a run."""
    from ccfast.commands._page import write_page
    from ccfast.training import train
    from ccfast.training.config_file import config_from_options

    config = config_from_options(options)
    write_page(train(config), config)
