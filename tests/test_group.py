"""Several processes, as torchrun starts them, compute what one does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest
import torch
from torch import nn

from ccfast.data import ClusterSampler
from ccfast.training import TrainConfig, train
from ccfast.training.group import Group, SliceOfBatches

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")


@pytest.mark.parametrize("count", [0, 1, 7, 8, 64])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_slices_cover_all_rows_once_and_evenly(count, size):
    shares = [list(range(count))[Group(rank, size).slice_of(count)] for rank in range(size)]
    assert [row for share in shares for row in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_processes_share_every_batch():
    def batches(group):
        sampler = ClusterSampler(
            torch.arange(4).repeat(4), None, num_clusters=2, num_instances=3, iters=5,
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        return list(SliceOfBatches(sampler, group))

    halves = zip(batches(Group(0, 2)), batches(Group(1, 2)), strict=True)
    assert [first + second for first, second in halves] == batches(Group())


def test_alone_nothing_is_exchanged():
    group, rows = Group(), torch.ones(3, 2)
    assert group.gather(rows, 3) is rows
    assert group.share(rows) is rows
    group.sum_gradients(nn.Linear(2, 2))
    group.share_buffers(nn.BatchNorm1d(2))


OPTIONS = {"epochs": 2, "iters": 4, "device": "cpu"}


def start(rank, port, arguments):
    environment = {
        **os.environ, "WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "ccfast", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_two_processes_train_as_one_does(tmp_path):
    """One process whose BatchNorm groups are the slices of two has the same loss until running statistics differ."""
    alone = train(TrainConfig(run=str(tmp_path / "alone"), bn_group=32, **OPTIONS)).records
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = [text for name, value in OPTIONS.items() for text in (f"--{name}", str(value))]
    processes = [start(rank, port, ["train", "--run", str(tmp_path / "two"), *flags]) for rank in (0, 1)]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "after:  mAP" in outputs[0]
    assert "mAP" not in outputs[1]

    together = [json.loads(line) for line in (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()]
    assert together[0]["mAP"] == pytest.approx(alone[0]["mAP"], abs=1e-6)
    assert together[1]["loss"] == pytest.approx(alone[1]["loss"], rel=1e-3)
    assert together[1]["clusters"] == alone[1]["clusters"]
    assert together[2]["loss"] == pytest.approx(alone[2]["loss"], rel=0.2)
