"""``ccfast bench-train``."""

from __future__ import annotations

import argparse
from typing import Any

HELP = "measure the speed of a training run's steps"

#: Options of ``ccfast train`` that have no effect without a run folder, or that are not measured.
NOT_MEASURED = (
    "run", "resume", "tensorboard", "wandb", "mlflow", "eval_every", "ignore_cameras", "source", "source_dir",
    "mean_teacher", "teacher_momentum",
)  # fmt: skip


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``ccfast train``, and how much to measure."""
    from ccfast.commands._options import group
    from ccfast.commands.train import add_recipe
    from ccfast.training.config import FIELDS

    measurement = group(parser, "measurement")
    measurement.add_argument("--steps", type=int, metavar="INT", help="steps per timed pass (default: 20)")
    measurement.add_argument("--output", metavar="FILE.json", help="also write the numbers to a file")
    add_recipe(parser, tuple(name for name in FIELDS if name not in NOT_MEASURED))
    parser.description = "Measure a run's steps with its own data and options, without training or writing anything."


def run(options: dict[str, Any]) -> None:
    """Measure."""
    from ccfast.commands.bench_train.measure import bench_train
    from ccfast.training.config_file import config_from_options

    measure = {name: options.pop(name) for name in ("steps", "output") if name in options}
    bench_train(config_from_options(options), **measure)
