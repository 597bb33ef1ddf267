"""``--neighbours faiss``: an index finds the neighbours, ccfast computes their distances and everything after."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from processes import together
from sample_inputs import FEATURES, clustered

import ccfast
from ccfast._errors import InputError
from ccfast.cli import main
from ccfast.training import TrainConfig, train
from ccfast.training.clustering.faiss_search import FaissSearch, RowsAtHand, by_faiss, default_index
from ccfast.training.clustering.pseudo_labels import pseudo_labels
from ccfast.training.config import ClusterOptions
from ccfast.training.stopwatch import Stopwatch

pytest.importorskip("faiss")

CPU = torch.device("cpu")


def options_for(k1=12, **more):
    return ClusterOptions(neighbours="faiss", k1=k1, k2=min(3, k1), eps=0.55, **more)


@pytest.mark.parametrize("name", FEATURES)
def test_a_flat_index_finds_the_exact_neighbours(name):
    features = FEATURES[name]()
    k = min(12, len(features))
    indices, distances = by_faiss(features, options_for(k, faiss_index="Flat"))
    if name in ("ties", "duplicates", "identical"):  # more rows at one distance than faiss returns
        assert torch.equal(distances, ccfast.knn(features, k)[1])
        assert indices[:, 0].tolist() == list(range(len(features)))
    else:
        expected = ccfast.knn(features, k)
        assert torch.equal(indices, expected[0]) and torch.equal(distances, expected[1])
    ccfast.jaccard_distance(features, k, 1, neighbours=(indices, distances))  # accepted by the checks


@pytest.mark.slow
@pytest.mark.parametrize(
    ("index", "search"),
    [("IVF8,Flat", "nprobe=3"), ("IVF8,Flat", "auto"), ("IVF8,SQ8", "auto"), ("HNSW8", "efSearch=40"),
     ("HNSW8", "auto"), ("IVF8,PQ4x4", "auto"), ("IVF8,Flat", "nprobe=1"), ("auto", "auto")],
)  # fmt: skip
def test_indexes_find_most_neighbours(index, search):
    features = clustered(600, dim=16, identities=30)[0]
    found = by_faiss(features, options_for(faiss_index=index, faiss_search=search))
    exact = ccfast.knn(features, 12)
    recall = sum(len(set(a) & set(b)) for a, b in zip(found[0].tolist(), exact[0].tolist(), strict=True)) / 7200
    assert recall > (0.6 if search == "nprobe=1" else 0.9)
    labels = pseudo_labels(features, options_for(faiss_index=index, faiss_search=search), Stopwatch(CPU)).labels
    near = ccfast.jaccard_distance(features, 12, 3, max_distance=0.55, neighbours=found)
    assert torch.equal(labels, ccfast.dbscan(near, 0.55)) and labels.max() > 0


def test_rows_with_too_few_candidates_are_searched_exactly(caplog):
    features = clustered(60, dim=8, identities=4)[0]
    search = FaissSearch(RowsAtHand(features), options_for(20, faiss_index="IVF30,Flat", faiss_search="nprobe=1"))
    indices, distances = search.nearest(10, 60)
    assert search.left_out > 0
    exact = ccfast.knn(features, 20)
    short = (indices == exact[0][10:]).all(dim=1)
    assert int(short.sum()) >= search.left_out
    ccfast.jaccard_distance(features, 20, 3, neighbours=search.nearest(0, 60))
    assert distances.shape == (50, 20)


def test_the_default_index_suits_the_number_of_rows():
    assert default_index(20) == "Flat"
    assert default_index(1000) == "IVF25,Flat"
    assert default_index(10**6) == "IVF4000,Flat"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"faiss_index": "IVF8"}, "--faiss-index: faiss cannot make the index 'IVF8'"),
        ({"faiss_index": "rubbish"}, "--faiss-index: faiss cannot make the index 'rubbish'"),
        ({"faiss_index": "IVF999,Flat"}, "--faiss-index: faiss cannot fill 'IVF999,Flat'"),
        ({"faiss_search": "nprobes=3"}, "--faiss-search: faiss cannot set 'nprobes=3'"),
        ({"faiss_search": "nprobe"}, "--faiss-search: faiss cannot set 'nprobe'"),
        ({"faiss_index": ""}, "--faiss-index"),
    ],
)
def test_what_faiss_does_not_know_is_named(options, message):
    features = clustered(400, dim=16, identities=30)[0]
    with pytest.raises(InputError) as raised:
        by_faiss(features, options_for(**options))
    assert message in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("index", ["Flat", "IVF8,Flat", "HNSW16", "IVF8,SQ8"])
def test_an_index_larger_than_its_share_of_the_limit_is_refused(index):
    features = clustered(400, dim=16, identities=30)[0]
    code = 16 if index == "IVF8,SQ8" else 64
    least = 400 * (code + 8) + (400 * 32 * 4 if index == "HNSW16" else 0)
    options = options_for(faiss_index=index)
    with pytest.raises(InputError, match=rf"--memory-limit: the index {index} takes about 0 MB.*IVF4096,SQ8"):
        FaissSearch(RowsAtHand(features), options, most_bytes=least - 1)
    assert least <= FaissSearch(RowsAtHand(features), options, most_bytes=2 * least).bytes() < 1.1 * least + 400 * 4


def test_parameters_of_faiss_belong_to_faiss():
    for name in ("faiss_index", "faiss_search"):
        with pytest.raises(InputError, match=f"--{name.replace('_', '-')}: only with --neighbours faiss"):
            ClusterOptions(**{name: "IVF8,Flat"})
    with pytest.raises(InputError, match="--neighbours: expected one of 'exact', 'faiss', got 'annoy'"):
        ClusterOptions(neighbours="annoy")


def test_features_are_checked_before_an_index_is_made(tmp_path, capsys):
    np.save(tmp_path / "features.npy", 2 * clustered(90, dim=8, identities=4)[0].numpy())
    arguments = ["cluster", str(tmp_path / "features.npy"), "-o", str(tmp_path / "labels.npy"), "--neighbours", "faiss"]
    assert main(arguments) == 2
    assert "unit norm" in capsys.readouterr().err
    assert main([*arguments, "--normalize", "--k1", "91"]) == 2
    assert "k1: expected at most 90" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_clusters_and_trains_with_faiss(tmp_path):
    features = clustered(500, dim=16, identities=25)[0]
    np.save(tmp_path / "features.npy", features.numpy())
    arguments = ["--k1", "12", "--k2", "3", "--device", "cpu", "--neighbours", "faiss", "--faiss-index", "Flat"]
    for output, more in (("exact", arguments[:6]), ("faiss", arguments)):
        assert main(["cluster", str(tmp_path / "features.npy"), "-o", str(tmp_path / output), *more]) == 0
    assert np.load(tmp_path / "exact").tolist() == np.load(tmp_path / "faiss").tolist()
    records = [
        train(TrainConfig(epochs=1, iters=2, device="cpu", quiet=True, run=str(tmp_path / name), **options)).records[1]
        for name, options in (("a", {}), ("b", {"neighbours": "faiss", "faiss_index": "Flat"}))
    ]
    assert records[0]["clusters"] == records[1]["clusters"] and records[0]["loss"] == records[1]["loss"]


def labels_by_faiss(group):
    features = clustered(500, dim=16, identities=25)[0]
    options = options_for(faiss_index="IVF8,Flat", faiss_search="nprobe=2")
    return {"labels": pseudo_labels(features, options, Stopwatch(CPU), group).labels}


@pytest.mark.slow
def test_processes_share_a_search_by_faiss(tmp_path):
    from ccfast.training.group import Group

    alone = labels_by_faiss(Group())["labels"]
    assert alone.max() > 0
    for found in together(2, labels_by_faiss, tmp_path):
        assert torch.equal(found["labels"], alone)
