"""Features distributed over processes: blocks travel in a ring, and the results are those of one process."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
from functools import partial

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from processes import ccfast_in_processes, together
from sample_inputs import FEATURES, clustered, neighbours_for

import ccfast
from ccfast.cli import main
from ccfast.models import build_encoder
from ccfast.training.clustering import sharded
from ccfast.training.clustering.pseudo_labels import advice, pseudo_labels, suggested_eps
from ccfast.training.config import ClusterOptions, TrainConfig
from ccfast.training.extract import extract_shard
from ccfast.training.group import Group
from ccfast.training.shard import Shard
from ccfast.training.stopwatch import Stopwatch

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")

CPU = torch.device("cpu")
SIZES = [2, 4]


def shard_of(features, group):
    return Shard(features[group.slice_of(len(features))].clone(), len(features), group)


def cases():
    """Names, and features with k1 and k2."""
    found = {name: (features(), *neighbours_for(features())) for name, features in FEATURES.items()}
    found["five rows"] = (F.normalize(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), dim=1), 5, 1)
    found["far members"] = (clustered(600, dim=6, identities=3, noise=1.2)[0], 9, 4)
    return found


def results(group):
    """Neighbours, distances, labels and centroids, computed by the processes of ``group`` from their shards."""
    found = {}
    for name, (features, k1, k2) in cases().items():
        alone = group.size == 1
        given = features if alone else shard_of(features, group)
        lists = ccfast.knn(features, k1) if alone else sharded.nearest(given, k1, group)
        found |= {f"{name} {i}": group.gather(part, len(features)) for i, part in enumerate(lists)}
        if alone:
            near = ccfast.jaccard_distance(features, k1, k2, max_distance=0.7)
        else:
            near = sharded.jaccard_distance(given, k1, k2, max_distance=0.7, group=group)
        found |= {f"{name} {part}": getattr(near, part)() for part in ("crow_indices", "col_indices", "values")}
        options = ClusterOptions(eps=0.6, k1=k1, k2=k2, min_samples=2)
        labels = pseudo_labels(given, options, Stopwatch(CPU), group).labels
        found[f"{name} labels"] = labels
        if int(labels.max()) >= 0:
            centroids = ccfast.cluster_centroids(features, labels) if alone else sharded.centroids(given, labels)
            found[f"{name} centroids"] = centroids
        if importlib.util.find_spec("infomap") and name == "clustered":
            options = ClusterOptions(cluster="infomap", k1=k1, min_similarity=0.3)
            found["infomap"] = pseudo_labels(given, options, Stopwatch(CPU), group).labels
    return found


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_the_ring_finds_what_one_process_finds_bit_for_bit(size, tmp_path):
    alone = results(Group())
    assert any("centroids" in name for name in alone)
    for found in together(size, results, tmp_path):
        assert found.keys() == alone.keys()
        for name, value in alone.items():
            assert torch.equal(found[name], value), name


def what_is_sent(group):
    """Bytes that a process sends in a search, and the rows of the largest message."""
    shard = shard_of(clustered(4000, dim=32, identities=50)[0], group)
    plain, sent = dist.P2POp, []

    def counting(operation, tensor, peer):
        if operation is dist.isend:
            sent.append((tensor.numel() * tensor.element_size(), len(tensor)))
        return plain(operation, tensor, peer)

    dist.P2POp = counting
    try:
        sharded.nearest(shard, 10, group)
    finally:
        dist.P2POp = plain
    return {"sent": sum(size for size, _ in sent), "rows": max(rows for _, rows in sent)}


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_a_search_sends_every_block_but_one(size, tmp_path):
    for found in together(size, what_is_sent, tmp_path):
        assert found["sent"] == (size - 1) * (4000 // size) * 32 * 4
        assert found["rows"] == 4000 // size


def rows_by_name(group):
    features = clustered(101, dim=5, identities=7)[0]
    wanted = torch.tensor([0, 1, 50, 99, 100]) if group.rank == 0 else torch.arange(group.rank, 90, 3)
    return {"wanted": wanted, "rows": shard_of(features, group).fetch(wanted)}


@pytest.mark.slow
def test_rows_are_fetched_from_the_processes_that_hold_them(tmp_path):
    features = clustered(101, dim=5, identities=7)[0]
    for found in together(3, rows_by_name, tmp_path):
        assert torch.equal(found["rows"], features[found["wanted"]])


def bad_rows(group):
    """The error of each process for features with a bad row."""
    said = {}
    for name, row, value in (("nan", 37, torch.nan), ("norm", 5, 3.0)):
        features = clustered(40, dim=6, identities=4)[0]
        features[row] *= value
        try:
            sharded.jaccard_distance(shard_of(features, group), 5, 2, max_distance=0.5, group=group)
        except ValueError as error:
            said[name] = str(error)
    return said


@pytest.mark.slow
def test_all_processes_name_the_bad_row(tmp_path):
    for said in together(2, bad_rows, tmp_path):
        assert "features: expected finite values, got a non-finite value in row 37" in said["nan"]
        assert "unit norm" in said["norm"] and "norm 3 in row 5" in said["norm"]


def features_of_images(group):
    torch.manual_seed(0)
    encoder = build_encoder("smallconv", channels=1, height=8, width=8, pooling="average")
    images = list(torch.rand(23, 1, 8, 8))
    options = (lambda image: image, TrainConfig(batch_size=4, num_instances=2), group)
    shard = extract_shard(encoder, images, *options)
    return {"rows": shard.rows, "all": shard.gathered(), "of": shard.count}


@pytest.mark.slow
def test_extraction_writes_into_the_shard(tmp_path):
    whole = features_of_images(Group())
    assert torch.equal(whole["rows"], whole["all"])
    for rank, found in enumerate(together(2, features_of_images, tmp_path)):
        own = Group(rank, 2).slice_of(23)
        assert found["of"] == 23 and len(found["rows"]) == own.stop - own.start
        torch.testing.assert_close(found["rows"], whole["all"][own])
        torch.testing.assert_close(found["all"], whole["all"])


def suggestions(group):
    """The advice if there is no cluster, for few rows and for a sample of many."""
    said = {}
    for count in (200, 6000):
        features = clustered(count, dim=8, identities=count // 20, noise=0.3)[0]
        given = features if group.size == 1 else shard_of(features, group)
        options = ClusterOptions(k1=10, k2=3, eps=0.0)
        found = pseudo_labels(given, options, Stopwatch(CPU), group)
        said[str(count)] = advice(found, given, options)
        said[f"{count} eps"] = suggested_eps(given, options)[0]
    return said


@pytest.mark.slow
def test_advice_is_that_of_one_process(tmp_path):
    alone = suggestions(Group())
    assert "Try --eps" in alone["200"]
    for found in together(2, suggestions, tmp_path):
        assert found["200"] == alone["200"] and found["6000 eps"] == alone["6000 eps"]


def dies_in_the_ring(group, folder, after):
    """One process is killed while blocks travel; returns the error of the other."""
    os.environ["WORLD_SIZE"] = str(group.size)
    if group.rank == 1:
        plain, calls = Shard.ring, []

        def ring(shard):
            calls.append(1)
            for step, block in enumerate(plain(shard)):
                if step == 1 and len(calls) > after:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield block

        Shard.ring = ring
    from ccfast._errors import RunError
    from ccfast.training import train

    try:
        train(TrainConfig(epochs=3, iters=2, device="cpu", quiet=True, run=f"{folder}/run"))
    except RunError as error:
        with open(f"{folder}/said", "w", encoding="utf-8") as file:
            file.write(str(error))
        os._exit(0)


@pytest.mark.slow
def test_a_process_that_dies_in_the_ring_ends_the_run_and_it_can_go_on(tmp_path):
    with pytest.raises(AssertionError):  # one of the processes was killed
        together(2, partial(dies_in_the_ring, folder=str(tmp_path), after=1), tmp_path)
    said = (tmp_path / "said").read_text()
    assert re.search(r"another process of the run has ended \(.*\); interrupted; go on with: .* --resume$", said), said
    options = {"epochs": 3, "iters": 2, "device": "cpu", "run": tmp_path / "run"}
    output = ccfast_in_processes(2, "train", {**options}, flags=["--resume"])[0]
    assert "resumed after epoch 1 of 3" in output and "after:  mAP" in output


def cluster_in_processes(size, features, output, *flags, status=0):
    options = {"k1": 10, "k2": 3, "device": "cpu", "output": output}
    return ccfast_in_processes(size, "cluster", options, status=status, flags=[str(features), *flags])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dbscan", "infomap"])
def test_processes_cluster_a_file_of_which_each_reads_its_share(method, tmp_path):
    if method == "infomap":
        pytest.importorskip("infomap")
    features = clustered(301, dim=16, identities=20)[0]
    np.save(tmp_path / "features.npy", 2 * features.double().numpy())
    flags = ["--normalize", "--cluster", method]
    arguments = [str(tmp_path / "features.npy"), "--k1", "10", "--k2", "3", "--device", "cpu", *flags]
    assert main(["cluster", *arguments, "-o", str(tmp_path / "alone.npy")]) == 0
    outputs = cluster_in_processes(3, tmp_path / "features.npy", tmp_path / "together.npy", *flags)
    assert "301 rows of 16 values" in outputs[0] and outputs[1] == outputs[2] == ""
    expected = np.load(tmp_path / "alone.npy")
    assert np.load(tmp_path / "together.npy").tolist() == expected.tolist() and expected.max() > 0


def test_a_bad_row_ends_all_processes_with_its_number(tmp_path):
    features = clustered(40, dim=16, identities=4)[0]
    features[33] *= 2
    np.save(tmp_path / "features.npy", features.numpy())
    for output in cluster_in_processes(2, tmp_path / "features.npy", tmp_path / "labels.npy", status=2):
        assert "norm 2 in row 33 (--normalize scales rows to unit norm)" in output and "Traceback" not in output
    assert not (tmp_path / "labels.npy").exists()


def test_blocks_through_files_are_for_one_process(tmp_path):
    np.save(tmp_path / "features.npy", clustered(40, dim=16, identities=4)[0].numpy())
    flags = ["--memory-limit", "4G"]
    for output in cluster_in_processes(2, tmp_path / "features.npy", tmp_path / "labels.npy", *flags, status=2):
        assert "--memory-limit: expected one process" in output
