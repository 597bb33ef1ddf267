"""``ccfast pretrain``: the supervised baseline, its losses, its run folder, and the use of its result."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
import yaml
from processes import ccfast_in_processes

from ccfast._errors import InputError, Interrupted
from ccfast.cli import main
from ccfast.commands.evaluate.measure import evaluate_checkpoint
from ccfast.data import Part, ReIDData, load_data
from ccfast.training import TrainConfig, loop, train
from ccfast.training.pretrain import PretrainConfig, SupervisedLoss, batch_hard_triplet_loss, pretrain

QUICK = {"epochs": 2, "iters": 8, "device": "cpu"}


def run(path, **options):
    return pretrain(PretrainConfig(run=str(path), **{**QUICK, **options}))


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """A run of two short epochs on the digits."""
    return run(tmp_path_factory.mktemp("pretrain") / "quick")


def unit_features(count=12, dimensions=8):
    return F.normalize(torch.randn(count, dimensions, generator=torch.Generator().manual_seed(0)), dim=1)


def test_triplet_loss_takes_the_farthest_positive_and_the_nearest_negative():
    features, identities = unit_features(), torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])
    terms = []
    for i, anchor in enumerate(features):
        distances = (features - anchor).norm(dim=1)
        farthest = max(distances[identities == identities[i]])
        nearest = min(distances[identities != identities[i]])
        terms.append(max(0.0, farthest - nearest + 0.3))
    loss = batch_hard_triplet_loss(features, identities)
    torch.testing.assert_close(loss, torch.tensor(terms).mean(), rtol=1e-4, atol=1e-5)


def test_triplet_loss_has_a_gradient_where_images_are_the_same():
    features = unit_features(2).repeat_interleave(2, 0).requires_grad_()
    batch_hard_triplet_loss(features, torch.tensor([0, 0, 1, 1])).backward()
    assert features.grad.isfinite().all()


def test_triplet_loss_without_negatives_is_zero():
    assert batch_hard_triplet_loss(unit_features(4), torch.zeros(4, dtype=torch.int64)) == 0


def test_supervised_loss_is_smoothed_cross_entropy_of_cosines_plus_triplets():
    loss, features = SupervisedLoss(8, 4, temperature=0.1), unit_features()
    identities = torch.arange(4).repeat_interleave(3)
    logits = features @ F.normalize(loss.weight, dim=1).T / 0.1
    expected = F.cross_entropy(logits, identities, label_smoothing=0.1) + batch_hard_triplet_loss(features, identities)
    torch.testing.assert_close(loss(features, identities), expected)
    loss(features.requires_grad_(), identities).backward()
    assert loss.weight.grad.abs().sum() > 0 and features.grad.abs().sum() > 0


@pytest.mark.slow
def test_pretraining_on_digits_beats_the_untrained_encoder(tmp_path):
    records = run(tmp_path / "run", iters=40).records
    assert records[0]["mAP"] < 0.67
    assert records[-1]["mAP"] > 0.85
    assert records[-1]["loss"] < records[1]["loss"]


@pytest.mark.slow
def test_run_folder_is_that_of_training(quick):
    assert {"config.yaml", "metrics.jsonl", "checkpoint.pt", "best.pt"} <= {path.name for path in quick.run.iterdir()}
    records = [json.loads(line) for line in (quick.run / "metrics.jsonl").read_text().splitlines()]
    assert records == quick.records
    assert [record["epoch"] for record in records] == [0, 1, 2]
    assert all(record["loss"] > 0 and record["lr"] == 2e-3 and 0 < record["mAP"] < 1 for record in records[1:])


def test_options_of_clustering_are_neither_stored_nor_taken(quick, capsys):
    stored = yaml.safe_load((quick.run / "config.yaml").read_text())
    assert stored["epochs"] == 2 and stored["temperature"] == 0.05
    assert not {"cluster", "eps", "k1", "k2", "memory", "momentum"} & stored.keys()
    with pytest.raises(InputError, match="--eps, --memory: only for training without labels"):
        PretrainConfig(eps=0.5, memory="hardest")
    with pytest.raises(SystemExit, match="2"):
        main(["pretrain", "--eps", "0.5"])
    assert "unrecognized arguments: --eps" in capsys.readouterr().err


def weights(folder):
    content = torch.load(folder / "checkpoint.pt", weights_only=True)
    return {**content["model"], "classifier": content["head"]["weight"]}


@pytest.mark.slow
def test_a_resumed_run_ends_as_an_uninterrupted_one(quick, tmp_path):
    run(tmp_path / "run", epochs=1)
    arguments = ["pretrain", "--run", str(tmp_path / "run"), "--resume", "--epochs", "2"]
    assert main(arguments) == 0
    for name, value in weights(quick.run).items():
        assert torch.equal(value, weights(tmp_path / "run")[name]), name


def test_an_interrupted_run_says_how_to_resume(tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "iterate", interrupt)
    with pytest.raises(Interrupted, match=r"go on with: ccfast pretrain --run .*run --resume"):
        run(tmp_path / "run")


@pytest.mark.slow
def test_runs_with_and_without_labels_are_not_resumed_as_each_other(quick, tmp_path, capsys):
    assert main(["train", "--run", str(quick.run), "--resume", "--epochs", "3"]) == 2
    assert f"--resume: {quick.run} is a run of ccfast pretrain; go on with: ccfast pretrain" in capsys.readouterr().err
    without = train(TrainConfig(run=str(tmp_path / "run"), **{**QUICK, "epochs": 1})).run
    assert main(["pretrain", "--run", str(without), "--resume"]) == 2
    assert f"{without} is a run of ccfast train; go on with: ccfast train --run {without}" in capsys.readouterr().err


@pytest.mark.slow
def test_the_result_can_be_evaluated_and_started_from(quick, tmp_path):
    best = max(quick.records, key=lambda record: record["mAP"])
    assert evaluate_checkpoint(str(quick.run), device="cpu")["mAP"] == pytest.approx(best["mAP"], abs=1e-6)
    after = train(TrainConfig(run=str(tmp_path / "run"), init=str(quick.run), **{**QUICK, "epochs": 1})).records
    assert after[0]["mAP"] == pytest.approx(best["mAP"], abs=1e-6)


@pytest.mark.parametrize("ids", [torch.zeros(20, dtype=torch.int64), None])
def test_data_without_identities_are_refused(tmp_path, monkeypatch, ids):
    digits = load_data("digits")
    part = Part(digits.train.images[:20], ids)
    data = ReIDData("digits", part, None, None, 1, digits.make_views)
    monkeypatch.setattr(loop, "data_of", lambda config: data)
    with pytest.raises(InputError, match=r"identities"):
        run(tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")
def test_two_processes_learn_the_classifier_that_one_does(tmp_path):
    """The weight decay is large so that a wrong scale of the gradients shows; Adam alone would hide it."""
    options = {"epochs": 1, "iters": 3, "device": "cpu", "weight_decay": 1.0}
    run(tmp_path / "alone", bn_group=20, **options)  # a batch holds 10 digits x 4
    ccfast_in_processes(2, "pretrain", {**options, "run": tmp_path / "two"})
    found, expected = weights(tmp_path / "two")["classifier"], weights(tmp_path / "alone")["classifier"]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
