"""Receivers of a run's records: a callback, Weights & Biases, MLflow; and the best encoder as safetensors."""

from __future__ import annotations

import importlib.util
import json
import sys
import time

import pytest
import torch

from ccfast._errors import InputError
from ccfast.training import TrainConfig, train
from ccfast.training.run_folder.checkpoint import load
from ccfast.training.trackers import MLflow, WeightsAndBiases
from ccfast.training.trained import load_trained

RECORDS = [{"epoch": 0, "loss": None, "mAP": 0.5}, {"epoch": 1, "loss": 2.5, "mAP": 0.6, "seconds": {"train": 4.0}}]


def run(path, on_record=None, **options):
    options = {"epochs": 2, "iters": 1, "device": "cpu", "quiet": True, "run": str(path), **options}
    return train(TrainConfig(**options), on_record)


class Listener:
    def __init__(self, stop_at=None):
        self.records, self.closed, self.stop_at = [], 0, stop_at

    def __call__(self, record):
        self.records.append(record)
        if record["epoch"] == self.stop_at:
            raise RuntimeError("enough")

    def close(self):
        self.closed += 1


@pytest.fixture(scope="module")
def listened(tmp_path_factory):
    listener = Listener()
    return run(tmp_path_factory.mktemp("runs") / "run", listener), listener


@pytest.mark.slow
def test_a_callback_gets_each_record_and_is_closed(listened):
    result, listener = listened
    assert listener.records == result.records and listener.closed == 1
    listener.records[0]["mAP"] = "changed"
    assert result.records[0]["mAP"] != "changed"


@pytest.mark.slow
def test_an_error_of_a_callback_ends_a_run_that_can_go_on(tmp_path, listened):
    listener = Listener(stop_at=1)
    with pytest.raises(RuntimeError, match="enough"):
        run(tmp_path / "run", listener)
    assert listener.closed == 1
    later = Listener()
    result = run(tmp_path / "run", later, resume=True)
    assert [record["epoch"] for record in later.records] == [2]
    assert result.records[-1]["loss"] == listened[0].records[-1]["loss"]


@pytest.mark.slow
def test_a_plain_function_will_do(tmp_path):
    epochs = []
    run(tmp_path / "run", lambda record: epochs.append(record["epoch"]), epochs=1)
    assert epochs == [0, 1]


@pytest.mark.parametrize(("kind", "package"), [(WeightsAndBiases, "wandb"), (MLflow, "mlflow")])
def test_a_missing_package_is_named(kind, package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"--{package} needs {package}.*pip install .ccfast.{package}."):
        kind(tmp_path, TrainConfig())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=f"--{package} needs the package {package}"):
        TrainConfig(**{package: True})


def appears(text, file, within=30):
    """Whether ``text`` appears in ``file`` within some seconds: a process of wandb writes it asynchronously."""
    end = time.monotonic() + within
    while text not in file.read_bytes() and time.monotonic() < end:
        time.sleep(0.1)
    return text in file.read_bytes()


@pytest.mark.slow
def test_weights_and_biases_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for records in (RECORDS[:1], RECORDS[1:]):  # a run, and the same run resumed
        tracker = WeightsAndBiases(tmp_path, TrainConfig(lr=0.125))
        for record in records:
            tracker(record)
        tracker.close()
    name = (tmp_path / "wandb-run.txt").read_text().strip()
    files = sorted((tmp_path / "wandb").glob(f"offline-run-*-{name}/run-{name}.wandb"))
    assert len(files) == 2
    assert appears(b"0.125", files[0]) and appears(b"seconds/train", files[1])


@pytest.mark.slow
def test_mlflow_into_the_run_folder(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for records in (RECORDS[:1], RECORDS[1:]):
        tracker = MLflow(tmp_path, TrainConfig(lr=0.125))
        for record in records:
            tracker(record)
        tracker.close()
    client = mlflow.MlflowClient(tracking_uri=(tmp_path / "mlruns").as_uri())
    (experiment,) = (one for one in client.search_experiments() if one.name == "ccfast")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED" and found.data.params["lr"] == "0.125"
    history = client.get_metric_history(found.info.run_id, "mAP")
    assert sorted((metric.step, metric.value) for metric in history) == [(0, 0.5), (1, 0.6)]
    assert found.data.metrics["seconds/train"] == 4


@pytest.mark.slow
def test_the_best_encoder_is_kept_as_safetensors_too(listened):
    safetensors = pytest.importorskip("safetensors", reason="safetensors is not installed")
    folder = listened[0].run
    best = torch.load(folder / "best.pt", weights_only=True)
    with safetensors.safe_open(folder / "best.safetensors", framework="pt") as file:
        assert set(file.keys()) == set(best["model"])
        metadata = file.metadata()
    assert metadata["format"] == "pt" and json.loads(metadata["config"]) == best["config"]
    content = load(folder / "best.safetensors")
    assert content["epoch"] == best["epoch"] and content["best"] == best["best"]
    images = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        features = [load_trained(folder / name).encoder(images) for name in ("best.pt", "best.safetensors")]
    assert torch.equal(*features)


def test_files_that_are_no_checkpoint_in_safetensors_are_refused(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    path = tmp_path / "x.safetensors"
    with pytest.raises(InputError, match="no such checkpoint"):
        load(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="not a safetensors file, or a truncated one"):
        load(path)
    safetensors.save_file({"fc.weight": torch.ones(2)}, path)
    with pytest.raises(InputError, match="its metadata has no config, epoch, best; --weights FILE"):
        load(path)
    safetensors.save_file({"a": torch.ones(2)}, path, {"config": "{", "epoch": "1", "best": "{}"})
    with pytest.raises(InputError, match="its metadata is not JSON"):
        load(path)
