"""Checkpoints: written whole or not at all, and read with what is wrong in words."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ccfast._errors import InputError
from ccfast.models import Encoder
from ccfast.training.config import TrainConfig


@dataclass
class State:
    """All that a run is between two epochs."""

    encoder: Encoder
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    epoch: int = 0
    best: dict[str, float] = field(default_factory=dict)
    first_clusters: int | None = None


def checkpoint(state: State, config: TrainConfig) -> dict[str, Any]:
    """``state`` as tensors and plain values, readable with ``torch.load(..., weights_only=True)``."""
    return {
        "config": config.stored(),
        "epoch": state.epoch,
        "best": state.best,
        "first_clusters": state.first_clusters,
        "model": state.encoder.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "scheduler": state.scheduler.state_dict(),
        "random": _random_states(),
    }


def for_search(state: State, config: TrainConfig) -> dict[str, Any]:
    """The encoder alone, for evaluation and search: what best.pt holds."""
    return {"config": config.stored(), "epoch": state.epoch, "best": state.best, "model": state.encoder.state_dict()}


def save(content: dict[str, Any], path: Path) -> None:
    """Write to a temporary file, flush it to the disk, and put it in the place of ``path`` in one step."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load(path: Path) -> dict[str, Any]:
    """The content of a checkpoint of ccfast."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such checkpoint") from error
    except Exception as error:  # torch.load raises whatever the bytes lead it to
        raise InputError(f"{path}: not a checkpoint, or a truncated one ({type(error).__name__})") from error
    if not isinstance(content, dict) or not {"config", "epoch", "model"} <= content.keys():
        raise InputError(f"{path}: not a checkpoint of ccfast train")
    return content


def load_model(encoder: Encoder, content: dict[str, Any], path: Path) -> None:
    """The weights of a checkpoint into ``encoder``."""
    try:
        encoder.load_state_dict(content["model"])
    except RuntimeError as error:
        reason = str(error).strip().splitlines()
        raise InputError(
            f"{path}: a checkpoint of another architecture: {' '.join(line.strip() for line in reason[:2])}"
        ) from error


def restore(state: State, content: dict[str, Any], path: Path) -> None:
    """Bring ``state`` and the random generators to where the checkpoint was written."""
    load_model(state.encoder, content, path)
    try:
        state.optimizer.load_state_dict(content["optimizer"])
        state.scheduler.load_state_dict(content["scheduler"])
        state.epoch, state.best = int(content["epoch"]), dict(content["best"])
        state.first_clusters = content["first_clusters"]
        _set_random_states(content["random"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: cannot be resumed from: {error!r}") from error


def _random_states() -> dict[str, Any]:
    states: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def _set_random_states(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["cpu"])
    if torch.cuda.is_available() and len(states.get("cuda", [])) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
