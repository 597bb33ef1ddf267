"""Programs that draw the numbers of a run: each is called with every record, as a callback of the user's own is."""

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

#: ``on_record(record)``: called after each epoch with what metrics.jsonl holds of it.
OnRecord = Callable[[Record], None]

#: What Weights & Biases and MLflow call the runs of ccfast together, where the user's environment says nothing.
PROJECT = "ccfast"


class WeightsAndBiases:
    """Logs each epoch's record to Weights & Biases; a resumed run goes on in the same run there.

    Where it goes is said by that package's own environment: ``WANDB_MODE=offline`` writes below the run folder only,
    ``WANDB_PROJECT`` names the project.

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
    """Logs each epoch's record to MLflow; a resumed run goes on in the same run there.

    ``MLFLOW_TRACKING_URI`` says where; without it, into files in ``mlruns`` in the run folder, which later releases of
    MLflow take where ``MLFLOW_ALLOW_FILE_STORE`` is set, as it is here.

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
        where = os.environ.get("MLFLOW_TRACKING_URI")
        if not where:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            where = (self._folder / "mlruns").absolute().as_uri()
        self._client = self._mlflow.MlflowClient(tracking_uri=where)
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
    """The name that the file ``path`` holds; a new one, which is written there, where there is no such file."""
    if path.is_file():
        return path.read_text(encoding="utf-8").strip()
    name = new()
    write_whole(path, name + "\n")
    return name


#: The option that asks for each, the package that it needs, and what makes it.
TRACKERS: dict[str, tuple[str, Callable[[Path, TrainConfig], Any]]] = {
    "tensorboard": ("tensorboard", lambda folder, _: Scalars(folder)),
    "wandb": ("wandb", WeightsAndBiases),
    "mlflow": ("mlflow", MLflow),
}


def trackers_of(config: TrainConfig, folder: Path) -> list[OnRecord]:
    """Those that ``config`` asks for."""
    return [make(folder, config) for option, (_, make) in TRACKERS.items() if getattr(config, option)]
