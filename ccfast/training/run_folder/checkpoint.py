"""Checkpoints: written completely or not at all, and read with clear errors."""

from __future__ import annotations

import logging
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from ccfast._errors import InputError, RunError, is_out_of_memory
from ccfast._files import write_whole
from ccfast.methods import Method
from ccfast.models import Encoder
from ccfast.models.weights import misfits
from ccfast.training.config import TrainConfig
from ccfast.training.config_file import known_options
from ccfast.training.group import ALONE, Group
from ccfast.training.optimizers import kept_of_each
from ccfast.training.run_folder.checkpoint_content import (
    Wrong,
    check_content,
    check_moments,
    check_plain,
    check_state,
    check_weights,
)
from ccfast.training.run_folder.random_states import random_states, set_random_states
from ccfast.training.run_folder.safe_file import SUFFIX, read_safetensors

log = logging.getLogger(__name__)


@dataclass
class State:
    """The complete state of a run between two epochs.

    ``encoder`` is evaluated and used for search; if it is a mean teacher, ``student`` is the encoder that is trained.
    ``scaler`` scales the gradients of fp16; ``head`` is a module that is trained with the encoder, or None;
    ``method`` provides its own state; ``labels`` [N] are the last epoch's clusters.
    """

    encoder: Encoder
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler
    epoch: int = 0
    best: dict[str, float] = field(default_factory=dict)
    first_clusters: int | None = None
    head: nn.Module | None = None
    method: Method | None = None
    labels: Tensor | None = None
    student: Encoder | None = None


def checkpoint(state: State, config: TrainConfig, group: Group = ALONE) -> dict[str, Any]:
    """``state`` as tensors and plain values, readable with ``torch.load(..., weights_only=True)``.

    Every process of ``group`` calls this, because the checkpoint has the random states of each.
    """
    return {
        "config": config.stored(),
        "epoch": state.epoch,
        "best": state.best,
        "first_clusters": state.first_clusters,
        "labels": state.labels,
        "model": state.encoder.state_dict(),
        "student": None if state.student is None else state.student.state_dict(),
        "head": None if state.head is None else state.head.state_dict(),
        "method": _state_of(state.method),
        "optimizer": state.optimizer.state_dict(),
        "scheduler": state.scheduler.state_dict(),
        "scaler": state.scaler.state_dict(),
        "random": group.collect(random_states()),
    }


def _state_of(method: Method | None) -> dict[str, Any]:
    if method is None:
        return {}
    state = method.state_dict()
    try:
        check_plain(f"{type(method).__name__}.state_dict()", state)
    except Wrong as error:
        raise RunError(f"{error}; the run could not be resumed from it") from error
    return state


def for_search(state: State, config: TrainConfig) -> dict[str, Any]:
    """The content of best.pt: only the encoder, for evaluation and search."""
    return {"config": config.stored(), "epoch": state.epoch, "best": state.best, "model": state.encoder.state_dict()}


def save(content: dict[str, Any], path: Path, previous: Path | None = None) -> None:
    """Write ``path`` completely or not at all; its old content goes to ``previous``, if given.

    Raises:
        OSError: it cannot be written; ``path`` and ``previous`` are unchanged.
    """

    def write(file: BinaryIO) -> None:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # torch raises one if the disk is full
            if is_out_of_memory(error):
                raise
            raise OSError(str(error).splitlines()[0]) from error

    write_whole(path, write, previous)


def load_latest(path: Path, previous: Path) -> tuple[dict[str, Any], Path]:
    """The content of the checkpoint in ``path``, or in ``previous`` if that one is damaged; and the file."""
    damaged = _damage(path)
    if damaged is None:
        content = _loaded(path)
    elif previous.exists():
        path, content = previous, _read(previous)
    else:
        raise InputError(damaged)
    _check(content, path)
    if damaged is not None:
        log.warning("%s. Using the checkpoint before it, after epoch %d", damaged, content["epoch"])
    return content, path


def load(path: Path) -> dict[str, Any]:
    """The content of a checkpoint of ccfast, or of a best.safetensors.

    Raises:
        InputError: there is none, it is damaged, or its entries have wrong types.
    """
    content = read_safetensors(path) if path.suffix == SUFFIX else _read(path)
    _check(content, path)
    return content


def _check(content: Any, path: Path) -> None:
    try:
        check_content(content)
    except Wrong as error:
        raise InputError(f"{path}: {error}") from error
    known_options(content["config"], str(path))


def _read(path: Path) -> Any:
    damaged = _damage(path)
    if damaged is not None:
        raise InputError(damaged)
    return _loaded(path)


def _loaded(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load can raise any error for damaged files
        if is_out_of_memory(error):
            raise
        raise InputError(f"{path}: not a checkpoint, or a truncated one ({type(error).__name__})") from error


def _damage(path: Path) -> str | None:
    """The error if the file is missing or not what was written, because torch.load does not verify checksums."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(damaged)
    except FileNotFoundError:
        return f"{path}: no such checkpoint"
    except MemoryError:
        raise
    except Exception as error:  # so can zipfile
        reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        return f"{path}: not a checkpoint, or a truncated one ({reason})"
    return None


def load_model(encoder: Encoder, content: dict[str, Any], path: Path, name: str = "model") -> None:
    """Load the weights of a checkpoint, from its entry ``name``, into ``encoder``."""
    found = misfits(encoder.state_dict(), content[name])
    if found:
        raise InputError(f"{path}: a checkpoint of another architecture: {found}")
    try:
        encoder.load_state_dict(content[name])
    except (RuntimeError, TypeError, NotImplementedError) as error:
        if is_out_of_memory(error):
            raise
        raise InputError(f"{path}: its {name} cannot be loaded: {str(error).splitlines()[0]}") from error


def restore(state: State, content: dict[str, Any], path: Path, rank: int = 0) -> None:
    """Restore ``state`` and the random generators of process ``rank`` from the checkpoint."""
    load_model(state.encoder, content, path)
    try:
        check_state(content, state.optimizer.state_dict(), state.scheduler.state_dict())
        if state.student is not None:
            check_weights("student", content.get("student"))
            load_model(state.student, content, path, "student")
        if state.head is not None:
            state.head.load_state_dict(content["head"])
        if state.method is not None:
            state.method.load_state_dict(content.get("method", {}))  # older checkpoints have none
        switches = {
            name: value for name, value in state.optimizer.defaults.items() if value is None or isinstance(value, bool)
        }
        for settings in content["optimizer"]["param_groups"]:
            settings.update(switches)  # "fused" must fit this device, which may differ
        state.optimizer.load_state_dict(content["optimizer"])
        check_moments(state.optimizer.state, kept_of_each(state.optimizer))
        own = state.scheduler.state_dict()
        state.scheduler.load_state_dict({name: content["scheduler"].get(name, value) for name, value in own.items()})
        if state.scaler.is_enabled():
            state.scaler.load_state_dict(content["scaler"])
        state.epoch, state.best = content["epoch"], dict(content["best"])
        state.first_clusters, state.labels = content["first_clusters"], content.get("labels")  # older ones have none
        states = content["random"]
        set_random_states(states[rank if rank < len(states) else 0])
    except (Wrong, InputError) as error:
        raise InputError(f"{path}: cannot be resumed from: {error}") from error
    except Exception as error:  # torch, NumPy and Python can raise any error for invalid states
        if is_out_of_memory(error):
            raise
        reason = str(error).partition("\n")[0][:200] or type(error).__name__
        raise InputError(f"{path}: cannot be resumed from: {type(error).__name__}: {reason}") from error
