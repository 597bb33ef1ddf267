"""``ccfast bench-train``."""

from __future__ import annotations

import argparse
from typing import Any

HELP = "how fast a training run's steps are"

#: Options of ``ccfast train`` that mean nothing where no run folder is made, or that are not measured.
NOT_MEASURED = (
    "run", "resume", "tensorboard", "wandb", "mlflow", "ignore_cameras", "source", "source_dir", "mean_teacher",
    "teacher_momentum",
)  # fmt: skip


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``ccfast train``, and how much to measure."""
    from ccfast.commands.train import add_recipe
    from ccfast.training.config import FIELDS

    add_recipe(parser, tuple(name for name in FIELDS if name not in NOT_MEASURED))
    parser.description = "Measure a run's steps with its own data and options: nothing is learnt or written."
    parser.add_argument("--steps", type=int, metavar="INT", help="steps of every pass that is timed (default: 20)")
    parser.add_argument("--output", metavar="FILE.json", help="write the numbers to a file too")


def run(options: dict[str, Any]) -> None:
    """Measure."""
    from ccfast.commands.bench_train.measure import bench_train
    from ccfast.training.config_file import config_from_options

    measure = {name: options.pop(name) for name in ("steps", "output") if name in options}
    bench_train(config_from_options(options), **measure)
