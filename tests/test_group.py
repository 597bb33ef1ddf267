"""Several processes, as torchrun starts them, compute what one process computes."""

from __future__ import annotations

import importlib.util
import json
import os
import time
from datetime import timedelta
from functools import partial

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from processes import ccfast_in_processes, together
from torch import nn

import ccfast
from ccfast._errors import InputError, RunError
from ccfast.data import ClusterSampler, load_data
from ccfast.methods import method_class
from ccfast.models import build_encoder
from ccfast.training import TrainConfig, loop, train
from ccfast.training.clustering import sharded
from ccfast.training.clustering.pseudo_labels import pseudo_labels
from ccfast.training.config import ClusterOptions
from ccfast.training.group import Group, SliceOfBatches, join
from ccfast.training.iterate import Batches, iterate
from ccfast.training.loop import Run
from ccfast.training.run_folder.folder import RunFolder
from ccfast.training.stopwatch import Stopwatch

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


def test_one_process_exchanges_nothing():
    group, rows = Group(), torch.ones(3, 2)
    assert group.gather(rows, 3) is rows
    assert group.from_main(lambda: rows) is rows
    assert group.collect(rows) == [rows]
    layer = nn.Linear(2, 2)
    assert group.parallel(layer, torch.device("cpu")) is layer
    assert not group.lost(RuntimeError("gloo: connection closed"))
    group.share_buffers(nn.BatchNorm1d(2))


CPU = torch.device("cpu")
SIZES = [2, 3]


def what_main_says(group):
    """A value and the errors of the main process, as each process receives them, and which process computed them."""
    asked = []

    def answer():
        asked.append(group.rank)
        return {"rows": torch.arange(3)}

    def fail(error):
        try:
            group.from_main(partial(_raise, error))
        except Exception as raised:
            return f"{type(raised).__name__}: {raised}"

    rows = group.from_main(answer)["rows"]
    return {"rows": rows, "asked": asked, "wrong": fail(InputError("3.jpg")), "broken": fail(KeyError("x"))}


def _raise(error):
    raise error


@pytest.mark.slow
def test_what_main_does_alone_all_learn(tmp_path):
    main, *others = together(3, what_main_says, tmp_path)
    assert [found["asked"] for found in (main, *others)] == [[0], [], []]
    assert [found["rows"].tolist() for found in (main, *others)] == [[0, 1, 2]] * 3
    assert [found["wrong"] for found in (main, *others)] == ["InputError: 3.jpg"] * 3
    assert main["broken"] == "KeyError: 'x'"
    assert [found["broken"] for found in others] == ["RunError: the main process cannot continue: KeyError: 'x'"] * 2


def wait_for_main(group, folder):
    """A message from the main process after a time in which the exchange of tensors would time out."""
    dist.destroy_process_group()
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/again",
        rank=group.rank,
        world_size=group.size,
        timeout=timedelta(seconds=2),
    )
    os.environ["WORLD_SIZE"] = str(group.size)
    joined, _ = join(CPU)
    return joined.from_main(lambda: time.sleep(5) or "done")


@pytest.mark.slow
def test_the_others_wait_for_main_for_as_long_as_it_takes(tmp_path):
    assert together(2, partial(wait_for_main, folder=tmp_path), tmp_path) == ["done", "done"]


def features_with_duplicates():
    """213 rows: clusters, 20 rows that appear twice, and one row that appears 11 times."""
    generator = torch.Generator().manual_seed(0)
    centres = F.normalize(torch.randn(12, 24, generator=generator), dim=1)
    rows = centres.repeat(16, 1)[:183] + 0.12 * torch.randn(183, 24, generator=generator)
    return F.normalize(torch.cat([rows, rows[40:60], rows[7].repeat(10, 1)]), dim=1)


def all_labels(group):
    """Labels and their distances, computed by the processes of ``group``."""
    features, found = features_with_duplicates(), {}
    for k1, k2, eps in ((20, 6, 0.6), (15, 1, 0.5), (7, 7, 0.99999999)):
        options = ClusterOptions(eps=eps, k1=k1, k2=k2)
        found[f"dbscan {k1} {k2} {eps}"] = pseudo_labels(features, options, Stopwatch(CPU), group).labels
        if group.size > 1:
            near = sharded.jaccard_distance(features, k1, k2, max_distance=eps, group=group)
        else:
            near = ccfast.jaccard_distance(features, k1, k2, max_distance=eps)
        found |= {
            f"{part} {k1} {k2} {eps}": getattr(near, part)() for part in ("crow_indices", "col_indices", "values")
        }
    for options in ({"eps": "auto"}, {"cluster": "hdbscan"}, {"cluster": "kmeans", "num_clusters": 12}):
        options = ClusterOptions(**options)
        found[f"{options.cluster} {options.eps}"] = pseudo_labels(features, options, Stopwatch(CPU), group).labels
    if importlib.util.find_spec("infomap"):
        options = ClusterOptions(cluster="infomap", min_similarity=0.3)
        found["infomap"] = pseudo_labels(features, options, Stopwatch(CPU), group).labels
    return found


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_processes_find_the_labels_of_one_bit_for_bit(size, tmp_path):
    alone = all_labels(Group())
    for found in together(size, all_labels, tmp_path):
        assert found.keys() == alone.keys()
        for name, value in alone.items():
            assert torch.equal(found[name], value), name


def some_steps(group, bn_group):
    """Loss, memory and weights after five steps of 24 images.

    In float64: Adam divides each gradient by its magnitude, and some gradients are only rounding errors (a bias before
    a BatchNorm). In float32 such a bias moves by 1e-5 in a direction that depends on the processor.
    """
    torch.manual_seed(0)
    encoder = build_encoder("smallconv", channels=1, height=8, width=8, pooling="average").double()
    images, labels = torch.rand(60, 1, 8, 8, dtype=torch.float64), torch.arange(60) % 6
    features = F.normalize(torch.randn(60, 128, dtype=torch.float64), dim=1)
    method = method_class("cluster-contrast")(TrainConfig(), load_data("digits"), CPU)
    method.start_epoch(features, labels, epoch=0)
    method.memory.double()
    optimizer = torch.optim.Adam([p for p in encoder.parameters() if p.requires_grad], lr=1e-3)
    drawn = [torch.randperm(60)[:24] for _ in range(5)]
    own = [rows[group.slice_of(24)] for rows in drawn]
    batches = Batches([(images[rows], rows) for rows in own], 24)
    loss = iterate(encoder, method.criterion, optimizer, batches, labels, bn_group, group)
    group.share_buffers(encoder)
    return {"loss": torch.tensor(loss), "memory": method.memory.features, **encoder.state_dict()}


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_processes_step_as_one_does(size, tmp_path):
    """One process whose BatchNorm groups are the slices of several: the same loss, memory, weights and statistics."""
    steps = partial(some_steps, bn_group=24 // size)
    alone = steps(Group())
    for found in together(size, steps, tmp_path):
        for name, value in alone.items():
            torch.testing.assert_close(
                found[name], value, rtol=1e-9, atol=1e-10, msg=lambda text, n=name: f"{n}: {text}"
            )


OPTIONS = {"epochs": 2, "iters": 4, "batch_size": 48, "device": "cpu"}


@pytest.mark.slow
def test_processes_train_as_one_does(tmp_path):
    size, bn_group = 3, 16
    alone = train(TrainConfig(run=str(tmp_path / "alone"), bn_group=bn_group, **OPTIONS)).records
    options = {**OPTIONS, "bn_group": bn_group, "run": tmp_path / "together"}
    outputs = ccfast_in_processes(size, "train", options)
    assert "after:  mAP" in outputs[0]
    assert "mAP" not in outputs[1]

    records = [json.loads(line) for line in (tmp_path / "together" / "metrics.jsonl").read_text().splitlines()]
    for record, expected in zip(records, alone, strict=True):
        assert record["mAP"] == pytest.approx(expected["mAP"], abs=1e-3)
        if record["epoch"] <= 1:  # in later epochs the encoders differ by rounding
            assert record["clusters"] == expected["clusters"]
        assert (record["loss"] or 0) == pytest.approx(expected["loss"] or 0, rel=1e-3)


def train_and_count(group, folder):
    """How often a process reads the data and ranks, and the mAP that its run uses."""
    os.environ["WORLD_SIZE"] = str(group.size)
    counts = {"data_of": 0, "evaluate": 0}

    def counted(name, function):
        def count(*args, **kwargs):
            counts[name] += 1
            return function(*args, **kwargs)

        return count

    for name in counts:
        setattr(loop, name, counted(name, getattr(loop, name)))
    records = train(TrainConfig(**{**OPTIONS, "epochs": 1, "run": f"{folder}/run"})).records
    return counts | {"mAP": [record["mAP"] for record in records]}


@pytest.mark.slow
def test_main_alone_reads_the_data_and_ranks(tmp_path):
    main, *others = together(3, partial(train_and_count, folder=tmp_path), tmp_path)
    assert (main["data_of"], main["evaluate"]) == (1, 2)
    for found in others:
        assert (found["data_of"], found["evaluate"]) == (0, 0)
        assert found["mAP"] == main["mAP"]


@pytest.mark.slow
def test_a_bad_image_ends_all_processes_with_its_name(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no image")
    options = {"dataset": "folder", "data_dir": tmp_path, "device": "cpu", "run": tmp_path / "run", "workers": 0}
    for output in ccfast_in_processes(2, "train", options, status=2):
        assert "ccfast train: 1 image cannot be read" in output and "a.jpg" in output
        assert "Traceback" not in output


@pytest.mark.slow
def test_a_folder_that_holds_a_run_ends_all_processes(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    for output in ccfast_in_processes(2, "train", {**OPTIONS, "run": tmp_path}, status=2):
        assert "holds a run already" in output and "Traceback" not in output


def test_batches_with_less_than_two_images_a_process_are_refused(tmp_path):
    config = TrainConfig(batch_size=8, num_instances=4, device="cpu")
    run = Run(config, load_data("digits"), RunFolder(tmp_path), torch.device("cpu"), Group(0, 5))
    with pytest.raises(RunError, match="batches of 8 images, 4 per cluster, are too small for 5 processes"):
        run.batches(torch.arange(10) % 3)
