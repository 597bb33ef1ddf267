"""Runs that are killed at random moments end as one that is not killed."""

from __future__ import annotations

import os
import random
import signal
import time
from functools import partial

import pytest
import torch
from processes import Command, without_costs

from ccfast.training import TrainConfig, train
from ccfast.training.run_folder.records import read_records

OPTIONS = {"epochs": 4, "iters": 3, "device": "cpu"}
FLAGS = [text for name, value in OPTIONS.items() for text in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The records of a run on one thread, and the seconds that its process takes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    records = train(TrainConfig(run=str(tmp_path_factory.mktemp("runs") / "run"), **OPTIONS)).records
    torch.set_num_threads(threads)
    start = time.monotonic()
    assert command(tmp_path_factory.mktemp("timed") / "run").wait() == 0
    return records, time.monotonic() - start


def command(run, first=None):
    """The command that a job queue repeats."""
    return Command(["train", "--run", run, *FLAGS, "--resume"], first=first)


def finish(run, draw, kills, seconds):
    """Kill the run ``kills`` times, each at a random time after its first possible write; then let it end."""
    for _ in range(kills):
        process = command(run)
        begun = time.monotonic()
        while not (run / ".lock").exists() and process.poll() is None and time.monotonic() - begun < 60:
            time.sleep(0.001)
        time.sleep(draw.uniform(0, seconds / 3))
        process.kill()
        process.wait()
    done = command(run).done()
    assert done.returncode == 0, done.stderr


def check(run, records):
    found = read_records(run / "metrics.jsonl")
    assert found.faults == []
    assert without_costs(found.records) == without_costs(records)
    assert not list(run.glob(".*"))
    assert not list(run.glob("*.damaged-*"))


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_as_an_uninterrupted_one(tmp_path, uninterrupted):
    records, seconds = uninterrupted
    finish(tmp_path / "run", random.Random(0), 3, seconds)
    check(tmp_path / "run", records)


@pytest.mark.huge
@pytest.mark.parametrize("seed", range(20))
def test_runs_killed_many_times_end_as_an_uninterrupted_one(tmp_path, uninterrupted, seed):
    records, seconds = uninterrupted
    draw = random.Random(seed)
    finish(tmp_path / "run", draw, draw.randint(1, 5), seconds)
    check(tmp_path / "run", records)


def kill_before(number, folder):
    """This process kills itself just before the ``number``-th of its calls that change the disk in ``folder``."""
    left = number

    def counted(name):
        call = getattr(os, name)

        def killing(*args, **kwargs):
            nonlocal left
            if name != "open" or (args[1] & os.O_CREAT and folder in os.fspath(args[0])):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        setattr(os, name, killing)

    for name in ("replace", "fsync", "mkdir", "open"):
        counted(name)


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2, 4, 7, 11, 16, 22])
def test_a_run_killed_at_any_call_to_the_disk_goes_on(tmp_path, uninterrupted, number):
    """These kills are deterministic, unlike those above."""
    run = tmp_path / "run"
    assert command(run, first=partial(kill_before, number, str(tmp_path))).wait() == -signal.SIGKILL
    done = command(run).done()
    assert done.returncode == 0, done.stderr
    check(run, uninterrupted[0])
