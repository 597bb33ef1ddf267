"""Programs that plot the numbers of a run: each is a callback that gets every record, like a user's callback."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccfast._files import write_whole
from ccfast._optional import import_optional
from ccfast.training.tensorboard import Scalars, scalars

if TYPE_CHECKING:
    from ccfast.training.config import TrainConfig

Record = dict[str, Any]

#: ``on_record(record)``: called after each epoch with its record from metrics.jsonl.
OnRecord = Callable[[Record], None]

#: The project name of ccfast's runs in Weights & Biases and MLflow, unless the user's environment sets one.
PROJECT = "ccfast"


class WeightsAndBiases:
    """Logs each epoch's record to Weights & Biases; a resumed run continues the same run there.

    The environment variables of that package set the destination: ``WANDB_MODE=offline`` writes only below the run
    folder, ``WANDB_PROJECT`` names the project.

    Args:
        folder: the run folder.
        config: the run's options, which are logged too.

    Raises:
        InputError: the package wandb is not installed.
    """

    def __init__(self, folder: Path, config: TrainConfig) -> None:
        self._wandb = import_optional("wandb", "--wandb")
        self._folder, self._config = folder, config
        self._run: Any = None

    def __call__(self, record: Record) -> None:
        """Log the numbers of ``record``; the step is the epoch."""
        if self._run is None:
            self._run = self._wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                name=self._folder.name,
                id=_kept(self._folder / "wandb-run.txt", lambda: secrets.token_hex(4)),
                resume="allow",
                dir=self._folder,
                config=self._config.stored(),
            )
        self._run.log(dict(scalars(record)), step=record["epoch"])

    def close(self) -> None:
        """Finish the run."""
        if self._run is not None:
            self._run.finish()


class MLflow:
    """Logs each epoch's record to MLflow; a resumed run continues the same run there.

    ``MLFLOW_TRACKING_URI`` sets the destination; without it, records go to files in ``mlruns`` in the run folder. Later
    releases of MLflow allow this only if ``MLFLOW_ALLOW_FILE_STORE`` is set, so it is set here.

    Args:
        folder: the run folder.
        config: the run's options, which are logged too.

    Raises:
        InputError: the package mlflow is not installed.
    """

    def __init__(self, folder: Path, config: TrainConfig) -> None:
        self._mlflow = import_optional("mlflow", "--mlflow")
        self._folder, self._config = folder, config
        self._client: Any = None

    def __call__(self, record: Record) -> None:
        """Log the numbers of ``record``; the step is the epoch."""
        if self._client is None:
            self._begin()
        metric = self._mlflow.entities.Metric
        now = int(self._mlflow.utils.time.get_current_time_millis())
        numbers = [metric(name, float(value), now, record["epoch"]) for name, value in scalars(record)]
        self._client.log_batch(self._run, metrics=numbers)

    def _begin(self) -> None:
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            uri = (self._folder / "mlruns").absolute().as_uri()
        self._client = self._mlflow.MlflowClient(tracking_uri=uri)
        self._run = _kept(self._folder / "mlflow-run.txt", self._new_run)
        self._client.update_run(self._run, status="RUNNING")

    def _new_run(self) -> str:
        client = self._client
        experiment = client.get_experiment_by_name(PROJECT)
        number = client.create_experiment(PROJECT) if experiment is None else experiment.experiment_id
        run: str = client.create_run(number, run_name=self._folder.name).info.run_id
        param = self._mlflow.entities.Param
        client.log_batch(run, params=[param(name, str(value)) for name, value in self._config.stored().items()])
        return run

    def close(self) -> None:
        """Finish the run."""
        if self._client is not None:
            self._client.set_terminated(self._run)


def _kept(path: Path, new: Callable[[], str]) -> str:
    """The name in the file ``path``; if the file does not exist, a new name, which is written to it."""
    if path.is_file():
        return path.read_text(encoding="utf-8").strip()
    name = new()
    write_whole(path, name + "\n")
    return name


#: The option, the package and the class of each tracker.
TRACKERS: dict[str, tuple[str, Callable[[Path, TrainConfig], Any]]] = {
    "tensorboard": ("tensorboard", lambda folder, _: Scalars(folder)),
    "wandb": ("wandb", WeightsAndBiases),
    "mlflow": ("mlflow", MLflow),
}


def trackers_of(config: TrainConfig, folder: Path) -> list[OnRecord]:
    """The trackers that ``config`` requests."""
    return [make(folder, config) for option, (_, make) in TRACKERS.items() if getattr(config, option)]
