"""``ccfast train``."""

from __future__ import annotations

import argparse
from typing import Any

HELP = "train an encoder without labels"


def add_options(parser: argparse.ArgumentParser) -> None:
    """One flag per field of TrainConfig, ``--config`` and ``--preset``."""
    from ccfast.training.config import FIELDS

    parser.description = "Train an encoder without labels. With no option: scikit-learn's digits, about a minute."
    add_recipe(parser, tuple(FIELDS))


def add_recipe(parser: argparse.ArgumentParser, names: tuple[str, ...]) -> None:
    """Flags for the fields ``names``, and the options that set several of them."""
    from ccfast.commands._options import add_fields, group
    from ccfast.training.recipes import PRESETS, SMALL

    parser.epilog = (
        "The command line overrides --config, --config overrides --preset, and --preset overrides the default of the "
        "data set."
    )
    recipe = group(parser, "recipe")
    recipe.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        metavar="NAME",
        help=f"a recipe: {SMALL}, for a few thousand images or fewer, or a published one: "
        f"{', '.join(name for name in PRESETS if name != SMALL)}",
    )
    recipe.add_argument("--config", metavar="FILE.yaml", help="read options from a file, such as a run's config.yaml")
    add_fields(parser, names)


def run(options: dict[str, Any]) -> None:
    """Train, or resume a run."""
    from ccfast.commands._page import write_page
    from ccfast.training import train
    from ccfast.training.config_file import config_from_options

    config = config_from_options(options)
    write_page(train(config), config)
