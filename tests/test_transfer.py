"""``--init`` starts from another run's encoder; a projection goes with it."""

from __future__ import annotations

import pytest
import torch

from ccfast._errors import InputError
from ccfast.training import TrainConfig, train

QUICK = {"epochs": 1, "iters": 4, "device": "cpu"}


def run(path, **options):
    return train(TrainConfig(run=str(path), **{**QUICK, **options}))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return run(tmp_path_factory.mktemp("transfer") / "source", projection=16, seed=1)


@pytest.mark.parametrize("file", ["", "best.pt", "checkpoint.pt"])
def test_a_run_begins_with_the_encoder_of_another(source, tmp_path, file):
    result = run(tmp_path / "run", init=str(source.run / file), projection=16)
    measured = source.records[1 if file else torch.load(source.run / "best.pt", weights_only=True)["epoch"]]
    if file == "best.pt":
        measured = max(source.records, key=lambda record: record["mAP"])
    assert result.records[0]["mAP"] == pytest.approx(measured["mAP"], abs=1e-6)


def test_a_resumed_run_keeps_its_own_encoder(source, tmp_path):
    options = {"init": str(source.run), "projection": 16}
    whole = run(tmp_path / "whole", **options, epochs=2).records
    run(tmp_path / "parts", **options)
    resumed = run(tmp_path / "parts", **options, epochs=2, resume=True).records
    assert [record["loss"] for record in resumed] == [record["loss"] for record in whole]


def test_an_encoder_of_another_architecture_is_refused(source, tmp_path):
    with pytest.raises(InputError, match=r"--init: .*best.pt holds another encoder: --projection 16 \(this run: 0\)"):
        run(tmp_path / "run", init=str(source.run))
    assert not (tmp_path / "run").exists()


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"--init: .*nowhere: no such checkpoint"):
        run(tmp_path / "run", init=str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"--init: .*holds neither best.pt nor checkpoint.pt"):
        run(tmp_path / "run", init=str(tmp_path))


def test_features_of_the_projection_are_clustered_and_searched_with(source):
    content = torch.load(source.run / "best.pt", weights_only=True)
    assert content["model"]["neck.weight"].shape == (16,)
    assert content["config"]["projection"] == 16
