"""``ccfast bench-train``: what it measures, and what it prints."""

from __future__ import annotations

import json

import pytest
import torch

from ccfast._errors import InputError
from ccfast.cli import main
from ccfast.commands.bench_train.measure import WARM_UP, _Clock, bench_train
from ccfast.commands.bench_train.table import ALONE, CACHED, LOADED, METHOD, Report, Row
from ccfast.training import TrainConfig

SMALL = ["bench-train", "--device", "cpu", "--batch-size", "16", "--iters", "30", "--steps", "2"]


def test_it_prints_every_row_on_digits(capsys):
    assert main(SMALL) == 0
    printed = capsys.readouterr().out
    for text in ("images/s", ALONE, CACHED, LOADED, METHOD, "extraction", "jaccard", "dbscan", "an epoch of 30 steps"):
        assert text in printed


@pytest.mark.slow
def test_it_writes_numbers_that_agree_with_each_other(tmp_path):
    assert main([*SMALL, "--cache", "device", "--output", str(tmp_path / "speed.json"), "--quiet"]) == 0
    found = json.loads((tmp_path / "speed.json").read_text())
    rows = {row["name"]: row for row in found["rows"]}
    assert len(rows) == 6
    for row in rows.values():
        assert row["images_per_second"] == pytest.approx(row["images"] / row["seconds"])
    assert found["epoch_seconds"]["loss and memory update"] == pytest.approx(30 * rows[METHOD]["seconds"])
    assert 0 < found["method_share"] < 1


@pytest.mark.slow
def test_a_method_with_a_memory_of_all_images_is_measured_too():
    assert METHOD in bench_train(TrainConfig(device="cpu", method="spcl", batch_size=16), steps=1).rows


@pytest.mark.slow
@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_half_precision_is_measured_too(amp):
    assert CACHED in bench_train(TrainConfig(device="cpu", amp=amp, batch_size=16), steps=1).rows


@pytest.mark.slow
def test_nothing_is_written_to_a_run_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*SMALL, "--quiet"]) == 0
    assert not list(tmp_path.iterdir())


def test_no_steps_are_refused():
    with pytest.raises(InputError, match="--steps: expected at least 1, got 0"):
        bench_train(TrainConfig(device="cpu"), steps=0)


def test_the_method_is_what_is_not_the_encoders():
    rows = {ALONE: Row(ALONE, 10, 0.5), CACHED: Row(CACHED, 10, 1.0)}
    report = Report(rows, {"extract": 1.0, "jaccard": 2.0, "encoder and data": 5.0, "loss and memory update": 2.0}, 5)
    assert report.method_share == pytest.approx(0.4)
    assert "40.0%" in str(report)
    assert "50.0%" in str(report)


def test_the_clock_starts_after_the_warm_up(monkeypatch):
    times = iter([3.0, 10.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    clock = _Clock(range(WARM_UP + 3), torch.device("cpu"))
    assert list(clock) == list(range(WARM_UP + 3))
    assert clock.seconds == 7.0


def test_an_output_that_cannot_be_is_refused_before_anything_is_measured(tmp_path):
    with pytest.raises(InputError, match="--output: no such folder"):
        bench_train(TrainConfig(device="cpu"), output=str(tmp_path / "nowhere" / "numbers.json"))
