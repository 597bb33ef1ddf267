"""Checkpoints: written whole or not at all, and read with what is wrong in words."""

from __future__ import annotations

import logging
import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ccfast._errors import InputError
from ccfast.models import Encoder
from ccfast.models.weights import misfits
from ccfast.training.config import TrainConfig
from ccfast.training.group import ALONE, Group
from ccfast.training.random_states import random_states, set_random_states

log = logging.getLogger(__name__)


@dataclass
class State:
    """All that a run is between two epochs.

    ``scaler`` scales the gradients of fp16; ``head`` is what is learnt beside the encoder, if anything is.
    """

    encoder: Encoder
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler
    epoch: int = 0
    best: dict[str, float] = field(default_factory=dict)
    first_clusters: int | None = None
    head: nn.Module | None = None


def checkpoint(state: State, config: TrainConfig, group: Group = ALONE) -> dict[str, Any]:
    """``state`` as tensors and plain values, readable with ``torch.load(..., weights_only=True)``.

    Every process of ``group`` calls this: the checkpoint holds the random states of each.
    """
    return {
        "config": config.stored(),
        "epoch": state.epoch,
        "best": state.best,
        "first_clusters": state.first_clusters,
        "model": state.encoder.state_dict(),
        "head": None if state.head is None else state.head.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "scheduler": state.scheduler.state_dict(),
        "scaler": state.scaler.state_dict(),
        "random": group.collect(random_states()),
    }


def for_search(state: State, config: TrainConfig) -> dict[str, Any]:
    """The encoder alone, for evaluation and search: what best.pt holds."""
    return {"config": config.stored(), "epoch": state.epoch, "best": state.best, "model": state.encoder.state_dict()}


def save(content: dict[str, Any], path: Path, previous: Path | None = None) -> None:
    """Write to a temporary file, flush it to the disk, and put it in the place of ``path`` in one step.

    What ``path`` held goes to ``previous``, if given.

    Raises:
        OSError: it cannot be written; ``path`` and ``previous`` are what they were.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:  # torch makes a RuntimeError of a full disk
        temporary.unlink(missing_ok=True)
        raise OSError(f"{path}: cannot be written (is the disk full?): {str(error).splitlines()[0]}") from error
    if previous is not None and path.exists():
        os.replace(path, previous)
    os.replace(temporary, path)


def load_latest(path: Path, previous: Path) -> tuple[dict[str, Any], Path]:
    """The content of the checkpoint in ``path``, or in ``previous`` where that one is damaged; and which it was."""
    try:
        return load(path), path
    except InputError as error:
        if not previous.exists():
            if not path.exists():
                raise InputError(
                    f"--resume: {path.parent} holds no checkpoint: the run ended before its first one; remove the "
                    "folder and begin anew, without --resume"
                ) from error
            raise
        content = load(previous)
        log.warning("%s. Going back to the one before it, after epoch %d", error, content["epoch"])
        return content, previous


def load(path: Path) -> dict[str, Any]:
    """The content of a checkpoint of ccfast."""
    try:
        _check_sums(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such checkpoint") from error
    except Exception as error:  # torch.load raises whatever the bytes lead it to
        raise InputError(f"{path}: not a checkpoint, or a truncated one ({type(error).__name__})") from error
    if not isinstance(content, dict) or not {"config", "epoch", "model"} <= content.keys():
        raise InputError(f"{path}: not a checkpoint of ccfast train")
    return content


def _check_sums(path: Path) -> None:
    """Raise where the file's content is not what was written: torch.load does not look at its checksums."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(damaged)


def load_model(encoder: Encoder, content: dict[str, Any], path: Path) -> None:
    """The weights of a checkpoint into ``encoder``."""
    found = misfits(encoder.state_dict(), content["model"])
    if found:
        raise InputError(f"{path}: a checkpoint of another architecture: {found}")
    encoder.load_state_dict(content["model"])


def restore(state: State, content: dict[str, Any], path: Path, rank: int = 0) -> None:
    """Bring ``state`` and the random generators of process ``rank`` to where the checkpoint was written."""
    load_model(state.encoder, content, path)
    try:
        if state.head is not None:
            state.head.load_state_dict(content["head"])
        for settings in content["optimizer"]["param_groups"]:
            settings["fused"] = state.optimizer.defaults["fused"]  # right for this device, which may be another one
        state.optimizer.load_state_dict(content["optimizer"])
        state.scheduler.load_state_dict(content["scheduler"])
        if state.scaler.is_enabled():
            state.scaler.load_state_dict(content["scaler"])
        state.epoch, state.best = int(content["epoch"]), dict(content["best"])
        state.first_clusters = content["first_clusters"]
        states = content["random"]
        set_random_states(states[rank if rank < len(states) else 0])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: cannot be resumed from: {error!r}") from error
