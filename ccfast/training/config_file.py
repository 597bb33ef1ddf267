"""Configurations in files: written by a run, read by ``--config``, and checked when a run is resumed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import yaml

from ccfast._errors import InputError
from ccfast._files import given_path, write_whole
from ccfast.training.config import FIELDS, FREE_ON_RESUME, TrainConfig, expanded, flag, shortened
from ccfast.training.options_file import read_yaml
from ccfast.training.recipes import SMALL, preset_options
from ccfast.training.run_folder.folder import RunFolder
from ccfast.training.without_effect import warn_without_effect

log = logging.getLogger(__name__)

#: Number of unknown options that a message names.
NAMED = 10

_NAMES: dict[type, str] = {type(None): "nothing", list: "a list", str: "text"}


def config_from_options(options: dict[str, Any], config_type: type[TrainConfig] = TrainConfig) -> TrainConfig:
    """The configuration of the command line, as a ``config_type``.

    ``options`` override the file ``options["config"]``, the file overrides the preset ``options["preset"]``, and the
    preset overrides the data set's recipe. A warning names those of ``options`` that then have no effect.
    """
    given = dict(options)
    preset, file = given.pop("preset", None), given.pop("config", None)
    written = read_options(given_path("--config", file)) if file is not None else {}
    begun = _begun(given) if preset == SMALL else {}
    chosen = {} if preset is None else preset_options(preset, {**begun, **written, **given})
    if "dataset" in chosen and written.get("dataset", chosen["dataset"]) != chosen["dataset"]:
        raise InputError(
            f"--preset {preset}: {file} is for another data set, {shortened(written['dataset'])}; pass only one of them"
        )
    given = {name: expanded(name, value) for name, value in {**chosen, **written, **given}.items()}
    config = resumed_config(given, config_type) if given.get("resume") else config_type(**given)
    warn_without_effect(options, config)
    return config


def _begun(given: dict[str, Any]) -> dict[str, Any]:
    """The options of the run that ``given`` resumes, if it does: the preset's may depend on them."""
    resumes = given.get("resume") and given.get("run") is not None
    return _options_of_run(RunFolder(given_path("--run", given["run"]))) if resumes else {}


def write_config(path: Path, config: TrainConfig) -> None:
    """Write config.yaml, completely or not at all."""
    write_whole(path, yaml.safe_dump(config.stored(), sort_keys=False))


def read_options(path: Path) -> dict[str, Any]:
    """The options in a YAML file, which may be incomplete."""
    try:
        return known_options(read_yaml(path), str(path))
    except FileNotFoundError as error:
        raise InputError(f"--config: {path}: no such file") from error


def read_config(path: Path) -> TrainConfig:
    """The configuration in a run's config.yaml."""
    return TrainConfig(**read_options(path))


def _options_of_run(folder: RunFolder) -> dict[str, Any]:
    """The options with which the run in ``folder`` was started; none if it was not started.

    If config.yaml cannot be read, they come from the checkpoint.
    """
    try:
        if folder.config.exists() and (folder.config.is_dir() or folder.config.stat().st_size > 0):
            return read_options(folder.config)
        error = f"{folder.config}: no such file, or an empty one"
    except InputError as raised:
        if not folder.has_checkpoint():
            raise
        error = str(raised)
    if not folder.has_checkpoint():
        return {}
    from ccfast.training.run_folder.checkpoint import load_latest

    content, file = load_latest(folder.checkpoint, folder.previous)
    log.warning("%s. Using the options in %s", error, file.name)
    return known_options(content["config"], str(file))


def from_stored(stored: Any, source: str, **overrides: Any) -> TrainConfig:
    """A configuration from the result of :meth:`TrainConfig.stored`, with ``overrides`` of the user."""
    options = known_options(stored, source)
    try:
        TrainConfig(**options)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    return TrainConfig(**{**options, **overrides})


def resumed_config(given: dict[str, Any], config_type: type[TrainConfig] = TrainConfig) -> TrainConfig:
    """The configuration of the run folder in ``given``, with those of the ``given`` options that may change."""
    if given.get("run") is None:
        raise InputError("--resume: expected the run folder in --run, got none")
    folder = RunFolder(given_path("--run", given["run"]))
    begun = _options_of_run(folder)
    if not begun:
        return config_type(**given)
    check_command(begun, config_type, folder.path)
    if folder.has_checkpoint():
        check_unchanged(config_type(**begun).stored(), given, folder.path)
    elif given.get("dataset", begun.get("dataset")) != begun.get("dataset"):
        return config_type(**given)  # nothing has been trained yet, and the other options may be another recipe's
    return config_type(**{**begun, **given})


def check_command(stored: dict[str, Any], config_type: type[TrainConfig], run: Path) -> None:
    """Refuse to resume a run of the other command: only runs without labels have clustering options."""
    begun = "train" if "cluster" in stored else "pretrain"
    if begun != config_type.command:
        raise InputError(f"--resume: {run} is a run of ccfast {begun}; go on with: ccfast {begun} --run {run} --resume")


def check_unchanged(stored: dict[str, Any], wanted: dict[str, Any], run: Path) -> None:
    """Refuse options that a resumed run cannot change. Options newer than the run had their defaults in it."""
    before = {name: stored.get(name, item.default) for name, item in FIELDS.items()}
    if before["schedule"] == "cosine" and wanted.get("epochs", before["epochs"]) != before["epochs"]:
        raise InputError(
            f"--epochs: expected {before['epochs']}, as in {run}, got {wanted['epochs']}: a cosine schedule depends on "
            "the number of epochs; to train longer, start a new run with --init"
        )
    changed = [
        f"{flag(name)} {shortened(value)} (the run has {shortened(before[name])})"
        for name, value in wanted.items()
        if name not in FREE_ON_RESUME and value != before[name]
    ]
    if changed:
        raise InputError(f"--resume: {run} was started with other options: {', '.join(changed)}")


def known_options(stored: Any, source: str) -> dict[str, Any]:
    """``stored`` if it is a table of known options; errors begin with ``source``."""
    if not isinstance(stored, dict):
        raise InputError(
            f"{source}: expected options and their values, got {_NAMES.get(type(stored), type(stored).__name__)}"
        )
    unknown = sorted(shortened(name) for name in stored if name not in FIELDS)
    if unknown:
        more = f" and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
        raise InputError(f"{source}: unknown option(s) {', '.join(unknown[:NAMED])}{more}")
    return stored
