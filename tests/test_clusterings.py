"""The clusterings of --cluster, and measures of clusters without identities."""

from __future__ import annotations

import importlib.util
import logging

import numpy as np
import pytest
import torch
from sklearn.cluster import HDBSCAN
from sklearn.metrics import adjusted_rand_score, silhouette_score

import ccfast
from ccfast._errors import InputError
from ccfast.commands.cluster.features import cluster_file
from ccfast.commands.cluster.sweep import sweep_file
from ccfast.training import TrainConfig, messages, train
from ccfast.training.clustering import CLUSTERINGS, clusterer
from ccfast.training.clustering.by_hdbscan import hdbscan_labels
from ccfast.training.clustering.numbers import numbers_of
from ccfast.training.clustering.pseudo_labels import PseudoLabels, is_giant, pseudo_labels, warn_of_giant
from ccfast.training.clustering.silhouette import silhouette
from ccfast.training.clustering.sweep import GRID, best, sweep
from ccfast.training.config import ClusterOptions
from ccfast.training.stopwatch import Stopwatch

CPU = torch.device("cpu")


def planted(clusters=10, members=12, noise=0.12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.eye(clusters, 24).repeat_interleave(members, 0)
    rows = centres + noise * torch.randn(clusters * members, 24, generator=generator)
    return torch.nn.functional.normalize(rows, dim=1), torch.arange(clusters).repeat_interleave(members)


def found(features, **options):
    options = ClusterOptions(k1=10, k2=3, **options)
    return pseudo_labels(features, options, Stopwatch(CPU))


@pytest.mark.parametrize(
    "options",
    [{"eps": 0.6}, {"eps": "auto"}, {"cluster": "kmeans", "num_clusters": 10}, {"cluster": "hdbscan"}],
    ids=["dbscan", "auto", "kmeans", "hdbscan"],
)
def test_planted_clusters_are_found_and_numbered_by_their_first_images(options):
    features, truth = planted()
    labels = found(features, **options).labels
    assert labels.dtype is torch.int64
    inside = labels >= 0
    assert inside.float().mean() > 0.7
    assert adjusted_rand_score(truth[inside], labels[inside]) > 0.95
    first = [int((labels == label).nonzero()[0, 0]) for label in range(int(labels.max()) + 1)]
    assert first == sorted(first)


@pytest.mark.parametrize(("min_samples", "min_cluster_size"), [(1, 3), (2, 2), (4, 5)])
def test_hdbscan_on_sparse_distances_is_that_on_dense_ones(min_samples, min_cluster_size):
    features, _ = planted(20, 15, noise=0.25)
    sparse = ccfast.jaccard_distance(features, 10, 3, max_distance=0.99)
    dense = ccfast.jaccard_distance(features, 10, 3).numpy().astype(float)
    np.fill_diagonal(dense, 0)
    expected = HDBSCAN(
        min_cluster_size=min_cluster_size, min_samples=min_samples, metric="precomputed", copy=True
    ).fit_predict(dense)
    labels = hdbscan_labels(sparse, min_samples, min_cluster_size)
    assert len(set(labels)) > 5
    assert adjusted_rand_score(expected, labels) > 0.9  # equal distances may come in another order


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_hdbscan_takes_few_rows_and_equal_ones(rows):
    features = torch.nn.functional.normalize(torch.ones(rows, 4), dim=1)
    options = ClusterOptions(cluster="hdbscan", k1=rows, k2=1)
    assert pseudo_labels(features, options, Stopwatch(CPU)).labels.shape == (rows,)


def test_kmeans_of_equal_rows_gives_fewer_clusters():
    features = torch.eye(3, 8).repeat_interleave(5, 0)
    labels = found(features, cluster="kmeans", num_clusters=6).labels
    assert labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    with pytest.raises(InputError, match="--num-clusters: expected at most the 15 images, got 16"):
        found(features, cluster="kmeans", num_clusters=16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cluster": "kmeans"}, "--num-clusters: expected the number of clusters for --cluster kmeans, got none"),
        ({"cluster": "kmeans", "num_clusters": 1}, "--num-clusters: expected at least 2, got 1"),
        ({"cluster": "hdbscan", "k1": 4, "k2": 5}, r"--k2: expected at most --k1 \(4\), got 5"),
        ({"cluster": "agglomerative"}, "--cluster: expected one of 'dbscan', 'infomap', 'kmeans', 'hdbscan'"),
        ({"eps": "automatic"}, "--eps: expected a number, got 'automatic'"),
        ({"noise": "keep"}, "--noise: expected one of 'drop', 'single', got 'keep'"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        ClusterOptions(**options)


#: The options that each clustering may suggest to change.
OWN = {
    "dbscan": {"--eps", "--min-samples"},
    "infomap": {"--min-similarity", "--k1"},
    "kmeans": {"--num-clusters"},
    "hdbscan": {"--min-cluster-size", "--min-samples", "--k1"},
}


@pytest.mark.parametrize("name", CLUSTERINGS)
def test_each_clustering_gives_advice_about_its_own_options(name):
    if name == "infomap" and importlib.util.find_spec("infomap") is None:
        pytest.skip("infomap is not installed")
    features, _ = planted()
    options = ClusterOptions(cluster=name, k1=10, k2=3, num_clusters=3 if name == "kmeans" else None)
    kind = clusterer(name)
    none = PseudoLabels(torch.full((len(features),), -1))
    words = [kind.advice(none, features, options), kind.against_giants(features, options)]
    named = {word.strip(".,;:") for text in words for word in text.split() if word.startswith("--")}
    assert named and named <= OWN[name]


def test_eps_auto_says_what_it_chose_and_the_sweep_has_it():
    features, _ = planted(noise=0.2)
    options = ClusterOptions(k1=10, k2=3, eps="auto")
    trials = sweep(features, options)
    assert [trial.eps for trial in trials] == [eps for eps in GRID if eps in {trial.eps for trial in trials}]
    chosen = best(trials)
    assert chosen.score == max(trial.score for trial in trials if trial.noise <= 0.5)
    taken = pseudo_labels(features, options, Stopwatch(CPU))
    assert taken.eps == chosen.eps and torch.equal(taken.labels, chosen.found.labels)
    fixed = pseudo_labels(features, ClusterOptions(k1=10, k2=3, eps=chosen.eps), Stopwatch(CPU))
    assert torch.equal(fixed.labels, taken.labels)


def test_eps_auto_is_named_and_each_stage_announced_once(tmp_path, caplog):
    np.save(tmp_path / "f.npy", planted()[0].numpy())
    with caplog.at_level(logging.INFO, "ccfast"):
        cluster_file(str(tmp_path / "f.npy"), str(tmp_path / "labels.npy"), device="cpu", k1=10, k2=3, eps="auto")
    eps = pseudo_labels(planted()[0], ClusterOptions(k1=10, k2=3, eps="auto"), Stopwatch(CPU)).eps
    assert f", eps {eps:g} (auto); " in caplog.text
    assert caplog.text.count("finding clusters by DBSCAN") == 1


def test_an_epochs_line_names_its_clusters_and_stages(caplog):
    record = {"epoch": 2, "loss": 1.0, "clusters": 1, "noise": 1, "largest": 9, "eps": 0.7, "seconds": {"train": 0.01}}
    with caplog.at_level(logging.INFO, "ccfast"):
        for eps in (0.6, "auto"):
            messages.epoch(record, TrainConfig(epochs=3, eps=eps))
    clusters = "1 cluster, the largest of 9 images, 1 image in no cluster  (0.0 s)"
    assert caplog.messages == [f"epoch 2/3: loss 1.000  {before}{clusters}" for before in ("", "eps 0.7 (auto)  ")]


@pytest.mark.parametrize(
    ("rows", "clusters", "min_samples", "text"),
    [
        (50, 0, 4, "No --eps gives two or more clusters; try a smaller --min-samples than 4."),
        (50, 1, 4, "No --eps gives two or more clusters."),
        (50, 0, 2, "No --eps gives two or more clusters."),
        (5, 0, 4, "clusters: 5 rows are too few for --min-samples 4; try a smaller --min-samples than 4."),
        (5, 1, 4, "clusters: 5 rows are too few for --min-samples 4."),
    ],
)
def test_without_any_good_eps_the_advice_says_only_what_may_help(rows, clusters, min_samples, text):
    features = torch.nn.functional.normalize(torch.ones(rows, 4), dim=1)  # equal rows are one cluster at most
    labels = torch.full((rows,), clusters - 1)
    options = ClusterOptions(k1=5, k2=2, min_samples=min_samples)
    assert clusterer("dbscan").advice(PseudoLabels(labels), features, options).endswith(text)


def test_the_silhouette_is_that_of_scikit_learn():
    features, truth = planted(noise=0.3)
    labels = truth.clone()
    labels[::7] = -1
    labels[5] = 10  # a cluster of one image
    inside = labels >= 0
    expected = silhouette_score(features[inside].numpy(), labels[inside].numpy(), metric="cosine")
    assert silhouette(features, labels) == pytest.approx(expected, abs=1e-5)
    assert silhouette(features, labels, limit=50) == pytest.approx(expected, abs=0.1)
    assert silhouette(features, torch.zeros_like(labels)) is None
    assert silhouette(features, torch.full_like(labels, -1)) is None


def test_noise_becomes_separate_classes_and_noise_again():
    clusters = PseudoLabels(torch.tensor([0, -1, 1, 0, -1, 1]))
    assert clusters.as_classes(ClusterOptions()).tolist() == [0, -1, 1, 0, -1, 1]
    labels = clusters.as_classes(ClusterOptions(noise="single"))
    assert labels.tolist() == [0, 2, 1, 0, 3, 1]
    assert PseudoLabels(labels).clusters_alone().labels.tolist() == clusters.labels.tolist()
    assert PseudoLabels(torch.full((3,), -1)).as_classes(ClusterOptions(noise="single")).tolist() == [0, 1, 2]


def test_the_numbers_of_an_epoch():
    features, truth = planted()
    labels = truth.clone()
    labels[:3] = -1
    numbers = numbers_of(PseudoLabels(labels, 0.4), features, None)
    assert numbers.keys() == {"clusters", "noise", "largest", "silhouette", "eps"}
    assert (numbers["clusters"], numbers["noise"], numbers["largest"], numbers["eps"]) == (10, 3, 12, 0.4)
    again = numbers_of(PseudoLabels(labels), features, truth)
    assert again["last_ari"] == 1 and "eps" not in again
    other = truth.roll(6)
    inside = labels >= 0
    expected = adjusted_rand_score(other[inside], labels[inside])
    assert numbers_of(PseudoLabels(labels), features, other)["last_ari"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("sizes", "giant"), [([30, 5, 5, 5], True), ([10, 10, 10], False), ([90, 10], True), ([9] * 10, False)]
)
def test_a_cluster_out_of_proportion_is_a_giant(sizes, giant):
    assert is_giant(PseudoLabels(torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)))) == giant


def test_the_warning_of_a_giant_cluster_lists_other_eps(caplog):
    features, truth = planted()
    labels = torch.where(truth < 8, 0, truth - 7)
    warn_of_giant(PseudoLabels(labels), features, ClusterOptions(k1=10, k2=3))
    assert "one of the 3 clusters has 80% of the images (96 of 120, the others 12 on average)" in caplog.text
    assert "eps 0.6: 10 clusters" in caplog.text and "Try --eps 0." in caplog.text
    caplog.clear()
    warn_of_giant(PseudoLabels(truth), features, ClusterOptions(k1=10, k2=3))
    assert not caplog.text


@pytest.mark.slow
def test_the_sweep_is_printed_and_drawn(tmp_path, caplog):
    np.save(tmp_path / "features.npy", planted()[0].numpy())
    target = tmp_path / "sweep.png"
    with caplog.at_level(logging.INFO, logger="ccfast"):
        sweep_file(str(tmp_path / "features.npy"), str(target), k1=10, k2=3)
    assert target.read_bytes().startswith(b"\x89PNG")
    assert "eps  clusters   noise  largest  silhouette" in caplog.text
    assert caplog.text.count("<- --eps auto") == 1
    with pytest.raises(InputError, match=r"--output: .*\.png"):
        sweep_file(str(tmp_path / "features.npy"), str(tmp_path / "sweep.npy"))
    with pytest.raises(InputError, match="--sweep: only DBSCAN has an eps; expected --cluster dbscan, got hdbscan"):
        sweep_file(str(tmp_path / "features.npy"), str(target), cluster="hdbscan")


def test_the_noise_of_a_file_gets_labels_of_its_own(tmp_path):
    features, _ = planted(noise=0.25)
    np.save(tmp_path / "features.npy", features.numpy())
    for noise in ("drop", "single"):
        cluster_file(str(tmp_path / "features.npy"), str(tmp_path / f"{noise}.npy"), k1=10, k2=3, eps=0.45, noise=noise)
    dropped, single = np.load(tmp_path / "drop.npy"), np.load(tmp_path / "single.npy")
    assert (dropped == -1).any() and (single >= 0).all()
    assert (single[dropped >= 0] == dropped[dropped >= 0]).all()
    assert len(set(single[dropped == -1])) == (dropped == -1).sum()


def run(path, **options):
    return train(TrainConfig(**{"epochs": 2, "iters": 1, "device": "cpu", "run": str(path), **options})).records


@pytest.mark.slow
def test_a_run_tells_the_numbers_of_its_clusters_and_warns_of_a_giant_once(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="ccfast"):
        _, first, second = run(tmp_path / "run", eps=0.75)
    assert caplog.text.count("% of the images (") == 1
    assert {"silhouette", "largest", "eps"} <= first.keys() and "last_ari" not in first
    assert -1 <= second["silhouette"] <= 1 and second["last_ari"] <= 1 and second["eps"] == 0.75
    assert "silhouette 0." in caplog.text and "ARI with the last clusters" in caplog.text


@pytest.mark.slow
def test_single_images_are_learnt_from_and_still_counted_as_noise(tmp_path):
    dropped, single = (run(tmp_path / noise, epochs=1, eps=0.45, noise=noise)[1] for noise in ("drop", "single"))
    for name in ("clusters", "noise", "largest", "silhouette", "nmi"):
        assert single[name] == dropped[name]
    assert single["loss"] > dropped["loss"]  # there are more classes


@pytest.mark.slow
def test_spcl_takes_the_best_eps_and_classes_its_noise_itself(tmp_path):
    (record,) = run(tmp_path / "run", method="spcl", eps="auto", epochs=1)[1:]
    assert record["eps"] in GRID
    with pytest.raises(InputError, match="--noise: expected drop with --method spcl"):
        run(tmp_path / "single", method="spcl", noise="single")


def test_blocks_and_a_sweep_refuse_what_they_cannot_do(tmp_path):
    np.save(tmp_path / "features.npy", planted()[0].numpy())
    paths = str(tmp_path / "features.npy"), str(tmp_path / "labels.npy")
    with pytest.raises(InputError, match="--memory-limit: expected a number for --eps and --noise drop, got auto"):
        cluster_file(*paths, memory_limit="100M", eps="auto")
    with pytest.raises(InputError, match="--memory-limit: not with --sweep"):
        sweep_file(paths[0], str(tmp_path / "sweep.png"), memory_limit="100M")
