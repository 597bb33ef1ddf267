"""Options of the command line that have no effect together with the others: a warning names each."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import TYPE_CHECKING

from ccfast._words import counted
from ccfast.training.clustering import CLUSTERINGS, clusterer
from ccfast.training.group import is_main_process

if TYPE_CHECKING:
    from ccfast.training.config import TrainConfig

log = logging.getLogger(__name__)


def warn_without_effect(given: Collection[str], config: TrainConfig) -> None:
    """Warn of options that the user gave for a run of ``config``, and that it does not use.

    They are no error: the authors' command for InfoMap has DBSCAN's options too.

    Args:
        given: the names of the options on the command line. Those of presets, recipes and files are not checked,
            because they may be for other values of ``--cluster`` or ``--schedule``.
    """
    warn_of_other_clusterings(given, config.cluster)
    if "step_size" in given and config.schedule != "step":
        _warn("--step-size has no effect with --schedule %s", config.schedule)
    if "warmup" in given and config.warmup >= config.epochs:
        _warn("--warmup %d: the run has %s, so the learning rate does not reach --lr", config.warmup,
              counted(config.epochs, "epoch"))  # fmt: skip


def warn_of_other_clusterings(given: Collection[str], cluster: str) -> None:
    """Warn of those of the ``given`` options that only other clusterings than ``cluster`` use."""
    users: dict[str, list[str]] = {}
    for name in CLUSTERINGS:
        for option in clusterer(name).uses:
            users.setdefault(option, []).append(name)
    for option, names in users.items():
        if option in given and cluster not in names:
            _warn("--%s has no effect with --cluster %s, only with %s", option.replace("_", "-"), cluster,
                  " or ".join(names))  # fmt: skip


def _warn(message: str, *values: object) -> None:
    if is_main_process():
        log.warning(message, *values)
