"""Configurations in files: what a run writes, what ``--config`` reads, and what a resumed run may change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ccfast._errors import InputError
from ccfast.training.config import FIELDS, FREE_ON_RESUME, TrainConfig, flag
from ccfast.training.recipes import PRESETS
from ccfast.training.run_folder import write_whole


def config_from_options(options: dict[str, Any], config_type: type[TrainConfig] = TrainConfig) -> TrainConfig:
    """The configuration that the command line describes, of ``config_type``.

    What ``options`` say goes before the file ``options["config"]``, that before the preset ``options["preset"]``, and
    that before the data set's recipe.
    """
    given = dict(options)
    preset, file = given.pop("preset", None), given.pop("config", None)
    chosen = PRESETS[preset] if preset is not None else {}
    written = read_options(Path(file)) if file is not None else {}
    if written.get("dataset", chosen.get("dataset")) != chosen.get("dataset") and chosen:
        raise InputError(f"--preset {preset}: {file} is of another data set, {written['dataset']}; name one of them")
    given = {**chosen, **written, **given}
    return resumed_config(given, config_type) if given.get("resume") else config_type(**given)


def write_config(path: Path, config: TrainConfig) -> None:
    """Write config.yaml, whole or not at all."""
    write_whole(path, yaml.safe_dump(config.stored(), sort_keys=False))


def read_options(path: Path) -> dict[str, Any]:
    """The options that a YAML file gives; it need not give all."""
    try:
        stored = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"--config: {path}: no such file") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    return _known(stored, str(path))


def read_config(path: Path) -> TrainConfig:
    """The configuration in a run's config.yaml."""
    return TrainConfig(**_options_of_run(path))


def _options_of_run(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise InputError(f"{path.parent}: not a run folder: it holds no {path.name}")
    return read_options(path)


def from_stored(stored: Any, source: str, **overrides: Any) -> TrainConfig:
    """A configuration from what :meth:`TrainConfig.stored` gave."""
    return TrainConfig(**{**_known(stored, source), **overrides})


def resumed_config(given: dict[str, Any], config_type: type[TrainConfig] = TrainConfig) -> TrainConfig:
    """The configuration of the run folder in ``given`` with what else is given, where a resumed run may change it."""
    if given.get("run") is None:
        raise InputError("--resume: expected the run folder in --run, got none")
    run = Path(given["run"])
    begun = _options_of_run(run / "config.yaml")
    check_command(begun, config_type, run)
    check_unchanged(config_type(**begun).stored(), given, run)
    return config_type(**{**begun, **given})


def check_command(stored: dict[str, Any], config_type: type[TrainConfig], run: Path) -> None:
    """Refuse to go on with a run of the other command: only runs without labels have options of clustering."""
    begun = "train" if "cluster" in stored else "pretrain"
    if begun != config_type.command:
        raise InputError(f"--resume: {run} is a run of ccfast {begun}; go on with: ccfast {begun} --run {run} --resume")


def check_unchanged(stored: dict[str, Any], wanted: dict[str, Any], run: Path) -> None:
    """Refuse what a resumed run cannot take on. Options that came after the run began had their defaults in it."""
    before = {name: stored.get(name, item.default) for name, item in FIELDS.items()}
    changed = [
        f"{flag(name)} {value} (the run has {before[name]})"
        for name, value in wanted.items()
        if name not in FREE_ON_RESUME and value != before[name]
    ]
    if changed:
        raise InputError(f"--resume: {run} was begun with other options: {', '.join(changed)}")


def _known(stored: Any, source: str) -> dict[str, Any]:
    if not isinstance(stored, dict):
        raise InputError(f"{source}: expected options and their values, got {type(stored).__name__}")
    unknown = sorted(set(map(str, stored)) - set(FIELDS))
    if unknown:
        raise InputError(f"{source}: unknown option(s) {', '.join(unknown)}")
    return stored
