"""``ccfast pretrain``."""

from __future__ import annotations

import argparse
from typing import Any

HELP = "train an encoder with the labels of a source data set, for ccfast train --init"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``ccfast train`` that apply to training with labels."""
    from ccfast.commands._options import add_fields, group
    from ccfast.training.config import FIELDS
    from ccfast.training.pretrain_config import TEMPERATURE, WITHOUT_LABELS_ONLY

    parser.description = (
        "Train an encoder on the identities of a data set's training part, with smoothed cross-entropy and the "
        "batch-hard triplet loss. The run folder has the same files as that of ccfast train; ccfast train --init then "
        "trains this encoder further without labels."
    )
    recipe = group(parser, "recipe")
    recipe.add_argument("--config", metavar="FILE.yaml", help="read options from a file, such as a run's config.yaml")
    texts = {"temperature": f"temperature of the classification loss (default: {TEMPERATURE})"}
    add_fields(parser, tuple(name for name in FIELDS if name not in WITHOUT_LABELS_ONLY), texts=texts)


def run(options: dict[str, Any]) -> None:
    """Train, or resume a run."""
    from ccfast.commands._page import write_page
    from ccfast.training.config_file import config_from_options
    from ccfast.training.pretrain import pretrain
    from ccfast.training.pretrain_config import PretrainConfig

    config = config_from_options(options, PretrainConfig)
    write_page(pretrain(config), config)
