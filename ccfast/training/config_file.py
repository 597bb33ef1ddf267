"""Configurations in files: what a run writes, what ``--config`` reads, and what a resumed run may change."""

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

log = logging.getLogger(__name__)

#: How many unknown options a message names.
NAMED = 10

_NAMES: dict[type, str] = {type(None): "nothing", list: "a list", str: "text"}


def config_from_options(options: dict[str, Any], config_type: type[TrainConfig] = TrainConfig) -> TrainConfig:
    """The configuration that the command line describes, of ``config_type``.

    What ``options`` say goes before the file ``options["config"]``, that before the preset ``options["preset"]``, and
    that before the data set's recipe.
    """
    given = dict(options)
    preset, file = given.pop("preset", None), given.pop("config", None)
    written = read_options(given_path("--config", file)) if file is not None else {}
    begun = _begun(given) if preset == SMALL else {}
    chosen = {} if preset is None else preset_options(preset, {**begun, **written, **given})
    if "dataset" in chosen and written.get("dataset", chosen["dataset"]) != chosen["dataset"]:
        raise InputError(
            f"--preset {preset}: {file} is of another data set, {shortened(written['dataset'])}; name one of them"
        )
    given = {name: expanded(name, value) for name, value in {**chosen, **written, **given}.items()}
    return resumed_config(given, config_type) if given.get("resume") else config_type(**given)


def _begun(given: dict[str, Any]) -> dict[str, Any]:
    """The options of the run that ``given`` resumes, if it does: the preset's may depend on them."""
    resumes = given.get("resume") and given.get("run") is not None
    return _options_of_run(RunFolder(given_path("--run", given["run"]))) if resumes else {}


def write_config(path: Path, config: TrainConfig) -> None:
    """Write config.yaml, whole or not at all."""
    write_whole(path, yaml.safe_dump(config.stored(), sort_keys=False))


def read_options(path: Path) -> dict[str, Any]:
    """The options that a YAML file gives; it need not give all."""
    try:
        return known_options(read_yaml(path), str(path))
    except FileNotFoundError as error:
        raise InputError(f"--config: {path}: no such file") from error


def read_config(path: Path) -> TrainConfig:
    """The configuration in a run's config.yaml."""
    return TrainConfig(**read_options(path))


def _options_of_run(folder: RunFolder) -> dict[str, Any]:
    """The options that the run in ``folder`` was begun with: none where it was not begun.

    Where config.yaml cannot be read, the checkpoint says them.
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
    log.warning("%s. The options are those in %s", error, file.name)
    return known_options(content["config"], str(file))


def from_stored(stored: Any, source: str, **overrides: Any) -> TrainConfig:
    """A configuration from what :meth:`TrainConfig.stored` gave, with ``overrides`` of the user."""
    options = known_options(stored, source)
    try:
        TrainConfig(**options)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    return TrainConfig(**{**options, **overrides})


def resumed_config(given: dict[str, Any], config_type: type[TrainConfig] = TrainConfig) -> TrainConfig:
    """The configuration of the run folder in ``given`` with what else is given, where a resumed run may change it."""
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
        return config_type(**given)  # nothing has been learnt yet, and the other options were another recipe's
    return config_type(**{**begun, **given})


def check_command(stored: dict[str, Any], config_type: type[TrainConfig], run: Path) -> None:
    """Refuse to go on with a run of the other command: only runs without labels have options of clustering."""
    begun = "train" if "cluster" in stored else "pretrain"
    if begun != config_type.command:
        raise InputError(f"--resume: {run} is a run of ccfast {begun}; go on with: ccfast {begun} --run {run} --resume")


def check_unchanged(stored: dict[str, Any], wanted: dict[str, Any], run: Path) -> None:
    """Refuse what a resumed run cannot take on. Options that came after the run began had their defaults in it."""
    before = {name: stored.get(name, item.default) for name, item in FIELDS.items()}
    if before["schedule"] == "cosine" and wanted.get("epochs", before["epochs"]) != before["epochs"]:
        raise InputError(
            f"--epochs: expected {before['epochs']}, as {run} was begun, got {wanted['epochs']}: a cosine schedule is "
            "laid out over all epochs; to learn on, begin a new run with --init"
        )
    changed = [
        f"{flag(name)} {shortened(value)} (the run has {shortened(before[name])})"
        for name, value in wanted.items()
        if name not in FREE_ON_RESUME and value != before[name]
    ]
    if changed:
        raise InputError(f"--resume: {run} was begun with other options: {', '.join(changed)}")


def known_options(stored: Any, source: str) -> dict[str, Any]:
    """``stored`` if it is a table of options that there are; errors begin with ``source``."""
    if not isinstance(stored, dict):
        raise InputError(
            f"{source}: expected options and their values, got {_NAMES.get(type(stored), type(stored).__name__)}"
        )
    unknown = sorted(shortened(name) for name in stored if name not in FIELDS)
    if unknown:
        more = f" and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
        raise InputError(f"{source}: unknown option(s) {', '.join(unknown[:NAMED])}{more}")
    return stored
