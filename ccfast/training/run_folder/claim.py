"""A run folder for this process: makes it, locks it, and finds whether it has a run to resume."""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TypeVar

from ccfast._errors import InputError
from ccfast._files import given_path, remove_unfinished
from ccfast.training.config import TrainConfig
from ccfast.training.group import Group
from ccfast.training.run_folder.checkpoint import load
from ccfast.training.run_folder.folder import RunFolder, set_aside
from ccfast.training.run_folder.lock import FolderLock
from ccfast.training.run_folder.records import read_records

log = logging.getLogger(__name__)

Config = TypeVar("Config", bound=TrainConfig)


@contextlib.contextmanager
def claimed(config: Config, group: Group) -> Iterator[tuple[RunFolder, Config]]:
    """The run folder of ``config``, which other runs cannot use at the same time, and ``config``.

    If there is nothing to resume yet, ``resume`` of the returned configuration is False. A folder that was made here
    and is still empty at the end is removed.

    Raises:
        InputError: it already has a run, is in use, cannot be made or written to, or has lost its checkpoints.
    """
    with contextlib.ExitStack() as stack:

        def claim() -> tuple[Path, bool]:
            folder = stack.enter_context(_locked(config))
            return folder.path, _goes_on(folder) if config.resume else _is_new(folder)

        path, resume = group.from_main(claim)
        if config.resume and not resume:
            config = copy.copy(config)
            config.resume = False
        yield RunFolder(path), config


@contextlib.contextmanager
def _locked(config: TrainConfig) -> Iterator[RunFolder]:
    if config.resume and config.run is None:
        raise InputError("--resume: expected the run folder in --run, got none")
    made: list[Path] = []
    try:
        if config.run is None:
            path = _make_fresh(config.dataset, made)
        else:
            path = given_path("--run", config.run)
            _make(path, made)
        with FolderLock(path):
            remove_unfinished(path)
            yield RunFolder(path)
    finally:
        for folder in reversed(made):
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()


def _is_new(folder: RunFolder) -> bool:
    """Refuse a folder that already has a run, or files of the same names; False: nothing is resumed."""
    held = folder.held()
    if held:
        raise InputError(
            f"--run: {folder.path} holds a run already ({', '.join(held)}); "
            "pass --resume to continue it, or another folder"
        )
    others = folder.replaced_at_the_end()
    if others:
        raise InputError(
            f"--run: {folder.path} holds {', '.join(others)}, which a run would replace; pass another folder"
        )
    return False


def _goes_on(folder: RunFolder) -> bool:
    """Whether there is a checkpoint to resume from; otherwise the run's files from before its first one move away.

    Raises:
        InputError: there is none although the run was trained, and its results would be overwritten.
    """
    if folder.has_checkpoint():
        return True
    found = read_records(folder.metrics)
    last = max((record["epoch"] for record in found.records), default=0)
    if folder.best.exists():
        last = max(last, load(folder.best)["epoch"])
    if last > 0:
        raise InputError(
            f"--resume: {folder.path} has {last} epoch(s) of a run, but no {folder.checkpoint.name} to resume from; "
            "pass another folder to start a new run"
        )
    if found.faults:
        aside = set_aside(folder.metrics)
        log.warning("%s: %s; the original file is now %s", folder.metrics, found.told(), aside.name)
    folder.metrics.unlink(missing_ok=True)
    log.warning("--resume: %s has no checkpoint yet; the run starts from the beginning", folder.path)
    return False


def _make(path: Path, made: list[Path]) -> None:
    """Make the folder ``path``; ``made`` collects each folder that did not exist."""
    missing = [folder for folder in (path, *path.parents) if not os.path.lexists(folder)]
    try:
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)  # another process may make the same parent
            made.append(folder)
        if not path.is_dir():
            raise NotADirectoryError(None, "there is a file of that name")
    except OSError as error:
        raise InputError(f"--run: {path} cannot be made: {error.strerror}") from error


def _make_fresh(dataset: str, made: list[Path]) -> Path:
    """Make a new folder in runs/, named after the data set and the time."""
    runs = Path("runs")
    _make(runs, made)
    name = f"{dataset}-{time.strftime('%Y%m%d-%H%M%S')}"
    for number in count(1):
        path = runs / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise InputError(f"--run: {path} cannot be made: {error.strerror}") from error
        made.append(path)
        return path
    raise AssertionError("unreachable")
