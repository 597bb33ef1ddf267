"""TensorBoard scalars of a run's records."""

from __future__ import annotations

import math
import sys

import pytest

from ccfast._errors import InputError
from ccfast.training.tensorboard import Scalars

RECORDS = [
    {"epoch": 0, "loss": None, "clusters": None, "noise": None, "mAP": 0.5, "seconds": {"evaluate": 1.5}},
    {
        "epoch": 1, "loss": 2.5, "clusters": 12, "noise": 3, "nmi": 0.7, "ari": 0.5, "purity": 0.9, "lr": 0.002,
        "mAP": 0.6, "rank1": 0.8, "clothes_changing/mAP": 0.3, "peak_memory_mb": 512.0, "bf16": True,
        "seconds": {"extract": 1.0, "train": 4.0},
    },
]  # fmt: skip


def written(folder):
    """{tag: [(step, value), ...]} as TensorBoard shows it."""
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def add(folder, *records):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    scalars = Scalars(folder)
    for record in records:
        scalars(record)
    return scalars


def test_every_number_of_a_record_is_a_scalar_of_its_epoch(tmp_path):
    add(tmp_path, *RECORDS).close()
    found = written(tmp_path)
    assert found.keys() == {
        "loss", "clusters", "noise", "nmi", "ari", "purity", "lr", "mAP", "rank1", "clothes_changing/mAP",
        "peak_memory_mb", "seconds/evaluate", "seconds/extract", "seconds/train",
    }  # fmt: skip
    assert found["mAP"] == [(0, 0.5), (1, pytest.approx(0.6))]
    assert found["clusters"] == [(1, 12)] and found["seconds/train"] == [(1, 4)]


def test_scalars_are_on_the_disk_before_the_run_ends(tmp_path):
    add(tmp_path, RECORDS[0])
    assert written(tmp_path)["mAP"] == [(0, 0.5)]


def test_an_epoch_that_a_resumed_run_does_again_shows_once(tmp_path):
    add(tmp_path, *({"epoch": epoch, "loss": float(epoch)} for epoch in range(4))).close()
    add(tmp_path, {"epoch": 2, "loss": 20.0}, {"epoch": 3, "loss": 30.0}).close()
    assert written(tmp_path)["loss"] == [(0, 0), (1, 1), (2, 20), (3, 30)]


def test_a_loss_that_is_not_a_number_is_shown_as_such(tmp_path):
    add(tmp_path, {"epoch": 1, "loss": math.nan}).close()
    ((_, value),) = written(tmp_path)["loss"]
    assert math.isnan(value)


def test_nothing_is_written_before_the_first_record(tmp_path):
    add(tmp_path).close()
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)  # another test may have loaded it
    with pytest.raises(InputError, match=r"--tensorboard needs tensorboard.*pip install .ccfast.tensorboard."):
        Scalars(tmp_path)
