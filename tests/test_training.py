"""The training loop, its run folder, and failures of a run."""

from __future__ import annotations

import importlib.util
import json
import logging

import pytest
import torch
import yaml
from processes import without_costs

from ccfast._errors import InputError, Interrupted, RunError
from ccfast.training import TrainConfig, loop, train
from ccfast.training.clustering.pseudo_labels import (
    PseudoLabels,
    require_clusters,
    safe_eps,
    structural_tie,
    suggested_eps,
    warn_of_collapse,
    warn_of_structural_tie,
)
from ccfast.training.config import ClusterOptions
from ccfast.training.recipes import RECIPES
from ccfast.training.run_folder import checkpoint

QUICK = {"epochs": 2, "iters": 4, "device": "cpu"}


def run(path, **options):
    return train(TrainConfig(run=str(path), **{**QUICK, **options}))


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """A run of two short epochs on the digits."""
    return run(tmp_path_factory.mktemp("runs") / "quick")


@pytest.mark.slow
def test_training_on_digits_beats_the_untrained_encoder_and_raw_pixels(tmp_path):
    records = run(tmp_path / "run", epochs=3, iters=40).records
    assert records[0]["mAP"] < 0.67
    assert records[-1]["mAP"] > 0.78
    assert records[-1]["nmi"] > 0.8
    assert records[-1]["loss"] < records[1]["loss"]


def test_run_folder_holds_what_the_documentation_says(quick):
    names = {path.name for path in quick.run.iterdir()}
    assert {"config.yaml", "metrics.jsonl", "checkpoint.pt", "best.pt"} <= names
    assert not any(name.endswith(".tmp") for name in names)


def test_metrics_hold_one_record_an_epoch_from_before_training_on(quick):
    records = [json.loads(line) for line in (quick.run / "metrics.jsonl").read_text().splitlines()]
    assert records == quick.records
    assert [record["epoch"] for record in records] == [0, 1, 2]
    assert records[0]["loss"] is None
    for record in records:
        assert 0 < record["mAP"] < 1 and 0 < record["rank1"] <= record["rank5"] <= record["rank10"] <= 1
    for record in records[1:]:
        assert record["clusters"] >= 2 and 0 <= record["noise"] < 1198 and record["loss"] > 0
        assert {"extract", "jaccard", "dbscan", "memory", "train", "evaluate"} == record["seconds"].keys()


def test_config_holds_every_option_that_matters(quick):
    stored = yaml.safe_load((quick.run / "config.yaml").read_text())
    assert stored["epochs"] == 2 and stored["arch"] == "smallconv" and stored["eps"] == 0.6
    assert not {"run", "resume", "quiet"} & stored.keys()


def test_best_is_the_epoch_of_the_highest_map(quick):
    best = max(quick.records, key=lambda record: record["mAP"])
    content = torch.load(quick.run / "best.pt", weights_only=True)
    assert content["epoch"] == best["epoch"]
    assert content["best"] == {"epoch": best["epoch"], "mAP": best["mAP"]}


def test_curves_are_drawn(quick):
    assert (quick.run / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_same_seed_gives_the_same_run_and_another_seed_another(quick, tmp_path):
    again = run(tmp_path / "again")
    assert without_costs(again.records) == without_costs(quick.records)
    other = run(tmp_path / "other", seed=1)
    assert without_costs(other.records) != without_costs(quick.records)


def weights(folder):
    return torch.load(folder / "checkpoint.pt", weights_only=True)["model"]


@pytest.mark.slow
def test_a_resumed_run_ends_as_an_uninterrupted_one(quick, tmp_path):
    run(tmp_path / "run", epochs=1)
    torch.manual_seed(123)  # other random numbers in between
    resumed = run(tmp_path / "run", resume=True)
    assert without_costs(resumed.records) == without_costs(quick.records)
    for name, value in weights(quick.run).items():
        assert torch.equal(value, weights(tmp_path / "run")[name]), name


@pytest.mark.slow
def test_an_epoch_without_its_checkpoint_is_done_again(quick, tmp_path):
    run(tmp_path / "run", epochs=1)
    with open(tmp_path / "run" / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 2, "loss": 9.0, "clusters": 1, "noise": 0, "seconds": {}}\n{"epo')
    resumed = run(tmp_path / "run", resume=True)
    assert without_costs(resumed.records) == without_costs(quick.records)


def test_resuming_a_finished_run_trains_no_more(quick):
    before = (quick.run / "checkpoint.pt").read_bytes()
    assert run(quick.run, resume=True).records == quick.records
    assert (quick.run / "checkpoint.pt").read_bytes() == before


@pytest.mark.slow
def test_an_interrupted_run_says_how_to_resume(tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "iterate", interrupt)
    with pytest.raises(Interrupted, match=r"go on with: ccfast train --run .*run --resume"):
        run(tmp_path / "run")
    monkeypatch.undo()
    assert len(run(tmp_path / "run", resume=True).records) == 3


def test_an_existing_run_is_not_overwritten(quick):
    with pytest.raises(InputError, match=r"holds a run already.*--resume"):
        run(quick.run)


def test_resuming_with_other_options_is_refused(quick):
    with pytest.raises(InputError, match=r"started with other options: --eps 0.5 \(the run has 0.6\)"):
        run(quick.run, resume=True, eps=0.5)


def test_resuming_needs_a_run(tmp_path):
    with pytest.raises(InputError, match="expected the run folder in --run"):
        train(TrainConfig(resume=True))


@pytest.mark.parametrize("keep", [0, 100, 5_000, -200])
def test_a_truncated_checkpoint_is_named(quick, tmp_path, keep):
    content = (quick.run / "checkpoint.pt").read_bytes()
    (tmp_path / "checkpoint.pt").write_bytes(content[:keep])
    with pytest.raises(InputError, match=r"checkpoint.pt: not a checkpoint, or a truncated one"):
        run(tmp_path, resume=True)


def test_a_checkpoint_of_another_architecture_is_named(quick, tmp_path):
    content = torch.load(quick.run / "checkpoint.pt", weights_only=True)
    content["model"]["neck.weight"] = torch.ones(7)
    torch.save(content, tmp_path / "checkpoint.pt")
    with pytest.raises(InputError, match="a checkpoint of another architecture"):
        run(tmp_path, resume=True)


def test_a_file_of_something_else_is_no_checkpoint(tmp_path):
    torch.save({"weights": torch.ones(1)}, tmp_path / "checkpoint.pt")
    with pytest.raises(InputError, match="not a checkpoint of ccfast train"):
        checkpoint.load(tmp_path / "checkpoint.pt")


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "checkpoint.pt"
    checkpoint.save({"epoch": 1}, path)
    with pytest.raises(AttributeError):
        checkpoint.save({"epoch": 2, "bad": lambda: None}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 1}


def test_no_cluster_stops_the_run_with_an_eps_to_try(tmp_path):
    with pytest.raises(RunError, match=r"Try --eps 0.6: on these features it gives \d+ clusters"):
        run(tmp_path / "run", eps=0.001)
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 1


def features_of_clusters(clusters=4, members=8):
    generator = torch.Generator().manual_seed(0)
    centres = torch.eye(clusters, 16).repeat_interleave(members, 0)
    noise = 0.1 * torch.randn(clusters * members, 16, generator=generator)
    return torch.nn.functional.normalize(centres + noise, dim=1)


def test_suggested_eps_finds_the_planted_clusters():
    eps, clusters, noise = suggested_eps(features_of_clusters(), ClusterOptions(k1=8, k2=2))
    assert eps == 0.6
    assert clusters == 4
    assert noise < 0.2


@pytest.mark.parametrize(
    ("eps", "k2", "common", "safe"),
    [
        (0.5, 6, 4, [0.45, 0.55]),
        (0.5000001, 6, 4, [0.45, 0.55]),
        (2 / 3, 6, 3, [0.617, 0.717]),
        (0.8, 6, 2, [0.75, 0.85]),
        (1 - 1 / 11, 6, 1, [0.859, 0.955]),
        (0.0, 6, 6, [0.05]),
        (2 / 3, 2, 1, [0.617, 0.717]),
        (0.0, 1, 1, [0.05]),
    ],
)
def test_values_of_eps_on_a_structural_tie_are_known_with_values_beside_them(eps, k2, common, safe):
    assert structural_tie(eps, k2) == common
    assert safe_eps(common, k2) == safe
    assert all(structural_tie(value, k2) is None for value in safe)


def test_values_beside_every_structural_tie_are_off_all_of_them():
    for k2 in range(1, 60):
        for common in range(1, k2 + 1):
            tie = 1 - common / (2 * k2 - common)
            assert structural_tie(tie, k2) is not None
            for value in safe_eps(common, k2):
                assert 0 < value < 1 and abs(value - tie) <= 0.0505 and structural_tie(value, k2) is None


@pytest.mark.parametrize(
    ("eps", "k2"), [(0.6, 6), (0.5, 1), (0.5, 5), (0.45, 6), (0.55, 6), (0.667, 6), (0.99999999, 6)]
)
def test_other_values_of_eps_are_on_no_structural_tie(eps, k2):
    assert structural_tie(eps, k2) is None


@pytest.mark.parametrize("k2", [1, 2, 6, 20])
def test_rows_that_share_only_some_nearest_rows_have_a_structural_tie(k2):
    # Row 0 averages the encodings of rows 0 to k2 - 1, row 1 those of `common` of them and of others.
    rows = 2 * k2 + 1
    identity = torch.arange(rows + 1), torch.arange(rows), torch.ones(rows)
    for common in range(1, k2 + 1):
        rank = torch.arange(k2).repeat(rows, 1)
        rank[1] += k2 - common
        encoding = torch.ops.ccfast.expand_queries(*identity, rank, k2)
        distance = float(torch.ops.ccfast.dense_jaccard(*encoding, 0, rows, 0, rows)[0, 1])
        assert structural_tie(distance, k2) == common


@pytest.mark.slow
def test_a_run_at_a_structural_tie_is_warned(quick, caplog, tmp_path):
    warn_of_structural_tie(ClusterOptions(eps=0.5, k2=6))
    assert "--eps 0.5 with --k2 6: images that share 4 of their 6 nearest" in caplog.text
    assert "Use --eps 0.45 or 0.55." in caplog.text
    caplog.clear()
    run(tmp_path / "run", eps=2 / 3, k2=2)
    assert "--k2 2: images that share 1 of their 2 nearest" in caplog.text
    caplog.clear()
    run(tmp_path / "run", eps=2 / 3, k2=2, resume=True, epochs=3)
    assert "--k2 2: images that share" in caplog.text
    caplog.clear()
    warn_of_structural_tie(ClusterOptions(eps=0.6, k2=6))
    if importlib.util.find_spec("infomap"):
        warn_of_structural_tie(ClusterOptions(cluster="infomap", eps=0.5, k2=6))
    assert not caplog.text


def test_no_recipe_is_at_a_structural_tie():
    for name, recipe in RECIPES.items():
        options = TrainConfig(dataset=name, data_dir="DIR" if name != "digits" else None)
        assert structural_tie(options.eps, options.k2) is None, (name, recipe)


def test_features_without_clusters_get_other_advice():
    features = features_of_clusters()
    nothing = PseudoLabels(torch.full((32,), -1))
    with pytest.raises(RunError, match=r"no cluster among 32 images .* try a smaller --min-samples than 20"):
        require_clusters(nothing, features, ClusterOptions(k1=8, k2=2, min_samples=20), first=None)
    pytest.importorskip("infomap")
    with pytest.raises(RunError, match=r"Try a smaller --min-similarity than 0.5"):
        require_clusters(nothing, features, ClusterOptions(cluster="infomap", k1=8), first=None)


def test_the_error_of_a_collapsed_run_says_what_to_try(caplog):
    one = PseudoLabels(torch.zeros(32, dtype=torch.int64))
    with pytest.raises(
        RunError, match=r"one cluster .* began with 40 .*: the features have collapsed. Try --freeze-bn"
    ):
        require_clusters(one, features_of_clusters(), ClusterOptions(k1=8, k2=2), first=40)
    with caplog.at_level(logging.WARNING, logger="ccfast"):
        warn_of_collapse(PseudoLabels(torch.arange(11)), first=40)
        assert not caplog.records
        warn_of_collapse(PseudoLabels(torch.arange(9)), first=40)
    assert "only 9 clusters are left of the 40" in caplog.text


def test_a_diverged_run_stops_with_a_message(tmp_path):
    with pytest.raises(RunError, match=r"diverged .*smaller --lr"):
        run(tmp_path / "run", lr=1e30)


@pytest.mark.slow
def test_training_with_infomap(tmp_path):
    pytest.importorskip("infomap")
    records = run(tmp_path / "run", cluster="infomap", epochs=1, min_similarity=0.9).records
    assert records[-1]["clusters"] >= 2
    assert "infomap" in records[-1]["seconds"]


def test_more_neighbours_than_images_are_refused(tmp_path):
    with pytest.raises(InputError, match="--k1: expected at most the 1,198 training images, got 2000"):
        run(tmp_path / "run", k1=2000)
    assert not (tmp_path / "run").exists()


# -- image folders


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder in Market-1501's layout: 6 identities by colour, 2 cameras by brightness, some noise."""
    pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError))
    image = pytest.importorskip("PIL.Image")
    root = tmp_path_factory.mktemp("photos")
    generator = torch.Generator().manual_seed(0)
    for folder, ids in (("bounding_box_train", range(1, 7)), ("query", (8, 9)), ("bounding_box_test", (0, 8, 9))):
        (root / folder).mkdir()
        for pid in ids:
            colour = torch.randint(30, 200, (3,), generator=torch.Generator().manual_seed(pid))
            for shot in range(8 if folder == "bounding_box_train" else 2):
                pixels = colour + 40 * (shot % 2) + torch.randint(-20, 20, (32, 16, 3), generator=generator)
                picture = image.fromarray(pixels.clamp(0, 255).to(torch.uint8).numpy())
                camera = shot % 2 + (3 if folder == "query" else 1)
                picture.save(root / folder / f"{pid:04d}_c{camera}s1_{shot:06d}_00.png")
    return root


PHOTOS = {
    "dataset": "market1501", "arch": "resnet18", "weights": "none", "height": 32, "width": 16, "batch_size": 16,
    "num_instances": 4, "k1": 8, "k2": 2, "epochs": 1, "iters": 2, "bn_group": 8, "eval_every": 1, "device": "cpu",
}  # fmt: skip


@pytest.fixture(scope="module")
def photo_run(photos, tmp_path_factory):
    return train(TrainConfig(**PHOTOS, data_dir=str(photos), workers=0, run=str(tmp_path_factory.mktemp("r") / "r")))


@pytest.mark.slow
def test_training_on_an_image_folder(photo_run):
    assert photo_run.records[-1]["clusters"] >= 2
    assert "mAP" in photo_run.records[-1]


@pytest.mark.slow
def test_workers_do_not_change_the_run(photo_run, photos, tmp_path):
    config = TrainConfig(**PHOTOS, data_dir=str(photos), workers=2, run=str(tmp_path / "run"))
    assert without_costs(train(config).records) == without_costs(photo_run.records)


@pytest.mark.slow
def test_training_without_query_and_gallery(photos, tmp_path):
    (tmp_path / "bounding_box_train").symlink_to(photos / "bounding_box_train")
    config = TrainConfig(**PHOTOS, data_dir=str(tmp_path), workers=0, run=str(tmp_path / "run"))
    records = train(config).records
    assert "mAP" not in records[-1]
    assert torch.load(tmp_path / "run" / "best.pt", weights_only=True)["epoch"] == 1
