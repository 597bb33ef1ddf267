"""Runs that are killed, interrupted, or lose a process or a checkpoint: their messages, and how they resume."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from full_disk import files_of_at_most
from processes import Command, ccfast_in_processes, without_costs

from ccfast._errors import InputError
from ccfast.cli import main
from ccfast.training import TrainConfig, train
from ccfast.training.run_folder import checkpoint

OPTIONS = {"epochs": 3, "iters": 30, "device": "cpu"}
FLAGS = [text for name, value in OPTIONS.items() for text in (f"--{name}", str(value))]


def read(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def in_its_second_epoch(run, process):
    """``process``, whose run has finished its first epoch and is in its second."""
    deadline = time.monotonic() + 300
    while not (run / "checkpoint.previous.pt").exists():  # exists after the checkpoint of epoch 1
        assert process.poll() is None and time.monotonic() < deadline, process
        time.sleep(0.02)
    time.sleep(0.1)
    return process


def start(run):
    return in_its_second_epoch(run, Command(["train", "--run", run, *FLAGS]))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    records = train(TrainConfig(run=str(tmp_path_factory.mktemp("runs") / "run"), **OPTIONS)).records
    torch.set_num_threads(threads)
    return records


@pytest.mark.slow
def test_a_run_killed_in_the_middle_of_an_epoch_ends_as_an_uninterrupted_one(tmp_path, uninterrupted):
    run = tmp_path / "run"
    process = start(run)
    process.kill()
    process.wait()
    assert len(read(run)) < len(uninterrupted)
    assert Command(["train", "--run", run, "--resume"]).wait() == 0
    assert without_costs(read(run)) == without_costs(uninterrupted)


@pytest.mark.slow
def test_a_run_that_gets_sigterm_says_how_to_go_on(tmp_path):
    process = start(tmp_path / "run")
    process.send_signal(signal.SIGTERM)
    done = process.done()
    assert done.returncode == 130
    assert done.stderr.strip() == (
        f"ccfast train: interrupted; go on with: ccfast train --run {tmp_path / 'run'} --resume"
    )


@pytest.mark.slow
def test_a_process_that_dies_ends_the_job_and_resume_goes_on(tmp_path):
    run = tmp_path / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    job = subprocess.Popen(
        [*torchrun, "-m", "ccfast", "--", "train", "--run", str(run), *FLAGS], text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    in_its_second_epoch(run, job)
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(job.pid)], capture_output=True, text=True).stdout
    os.kill(int(children.split()[-1]), signal.SIGKILL)
    _, err = job.communicate(timeout=300)
    assert job.returncode != 0
    assert f"--run {run} --resume" in err
    done = len(read(run))
    ccfast_in_processes(2, "train", {"run": run}, flags=["--resume"])
    assert done < len(read(run)) == 4


@pytest.fixture
def damaged(tmp_path, request):
    """A run of two epochs whose last checkpoint is damaged, and its undamaged records."""
    records = train(TrainConfig(run=str(tmp_path / "run"), epochs=2, iters=3, device="cpu")).records
    path = tmp_path / "run" / "checkpoint.pt"
    content = bytearray(path.read_bytes())
    if request.param == "a flipped bit":
        content[len(content) // 2] ^= 1
    else:
        del content[len(content) * 2 // 3 :]
    path.write_bytes(content)
    return tmp_path / "run", records


@pytest.mark.slow
@pytest.mark.parametrize("damaged", ["a flipped bit", "half-written"], indirect=True)
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_it_used(damaged, caplog):
    run, records = damaged
    with caplog.at_level(logging.WARNING, logger="ccfast"):
        resumed = train(TrainConfig(run=str(run), epochs=2, iters=3, device="cpu", resume=True))
    assert "checkpoint.pt: not a checkpoint, or a truncated one" in caplog.text
    assert "Using the checkpoint before it, after epoch 1" in caplog.text
    assert without_costs(resumed.records) == without_costs(records) == without_costs(read(run))


@pytest.mark.slow
@pytest.mark.parametrize("damaged", ["half-written"], indirect=True)
def test_two_damaged_checkpoints_are_refused(damaged):
    run, _ = damaged
    (run / "checkpoint.previous.pt").write_bytes(b"")
    with pytest.raises(InputError, match=r"checkpoint.previous.pt: not a checkpoint"):
        checkpoint.load_latest(run / "checkpoint.pt", run / "checkpoint.previous.pt")


def test_a_checkpoint_brings_back_every_random_generator():
    import random

    import numpy as np

    from ccfast.training.run_folder.random_states import random_states, set_random_states

    states = random_states()
    drawn = torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()
    set_random_states(states)
    assert (torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()) == drawn


@pytest.mark.slow
def test_a_resumed_run_in_fp16_keeps_the_scale_of_its_gradients(tmp_path):
    options = {"run": str(tmp_path / "run"), "iters": 2, "device": "cpu", "amp": "fp16"}
    train(TrainConfig(epochs=1, **options))
    path = tmp_path / "run" / "checkpoint.pt"
    content = checkpoint.load(path)
    assert content["scaler"]["scale"] > 1
    content["scaler"]["scale"] = 3.0
    checkpoint.save(content, path)
    train(TrainConfig(epochs=2, resume=True, **options))
    assert checkpoint.load(path)["scaler"]["scale"] in (3.0, 1.5)  # halved where a step overflowed


@pytest.mark.slow
def test_a_run_goes_on_with_the_adam_of_its_device(tmp_path):
    """Adam is fused on a GPU; plain Adam there would refuse the scaled gradients of fp16."""
    options = {"run": str(tmp_path / "run"), "iters": 2, "device": "cpu"}
    train(TrainConfig(epochs=1, **options))
    path = tmp_path / "run" / "checkpoint.pt"
    content = checkpoint.load(path)
    for settings in content["optimizer"]["param_groups"]:
        settings["fused"] = True
    checkpoint.save(content, path)
    train(TrainConfig(epochs=2, resume=True, **options))
    assert [settings["fused"] for settings in checkpoint.load(path)["optimizer"]["param_groups"]] == [False]


@pytest.mark.slow
def test_a_full_disk_ends_a_run_with_a_message_and_keeps_its_checkpoints(tmp_path, capsys):
    run = tmp_path / "run"
    arguments = ["train", "--run", str(run), "--iters", "2", "--device", "cpu"]
    assert main([*arguments, "--epochs", "1"]) == 0
    before = {file: file.read_bytes() for file in run.glob("*.pt")}
    with files_of_at_most(100_000):
        assert main([*arguments, "--epochs", "2", "--resume"]) == 1
    assert "cannot be written (is the disk full?)" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in run.glob("*.pt")} == before
    assert not list(run.glob(".*"))
