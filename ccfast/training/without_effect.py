"""Options of the command line that have no effect together with the others."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from ccfast._errors import InputError
from ccfast._words import counted
from ccfast.training.clustering import CLUSTERINGS, clusterer

if TYPE_CHECKING:
    from ccfast.training.config import TrainConfig


def refuse_without_effect(given: Collection[str], config: TrainConfig) -> None:
    """Refuse options that the user gave for a run of ``config``, and that it would not use.

    Args:
        given: the names of the options on the command line. Those of presets, recipes and files are not checked,
            because they may be for other values of ``--cluster`` or ``--schedule``.

    Raises:
        InputError: an option without effect.
    """
    refuse_other_clusterings(given, config.cluster)
    if "step_size" in given and config.schedule != "step":
        raise InputError("--step-size: only with --schedule step")
    if "warmup" in given and config.warmup >= config.epochs:
        epochs = counted(config.epochs, "epoch")
        raise InputError(f"--warmup: expected fewer than the {epochs}, got {config.warmup}")


def refuse_other_clusterings(given: Collection[str], cluster: str) -> None:
    """Refuse those of the ``given`` options that belong to other clusterings than ``cluster``.

    Raises:
        InputError: an option that this clustering does not use.
    """
    users: dict[str, list[str]] = {}
    for name in CLUSTERINGS:
        for option in clusterer(name).uses:
            users.setdefault(option, []).append(name)
    for option, names in users.items():
        if option in given and cluster not in names:
            flag = f"--{option.replace('_', '-')}"
            raise InputError(f"{flag}: only with --cluster {' or '.join(names)}, got {cluster}")
