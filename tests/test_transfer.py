"""``--init`` starts from another run's encoder, including its projection."""

from __future__ import annotations

import pytest
import torch

from ccfast._errors import InputError
from ccfast.models import build_encoder
from ccfast.training import TrainConfig, train
from ccfast.training.loop import make_encoder
from ccfast.training.run_folder.checkpoint import load_model
from ccfast.training.transfer import init_encoder

QUICK = {"epochs": 1, "iters": 4, "device": "cpu"}


def run(path, **options):
    return train(TrainConfig(run=str(path), **{**QUICK, **options}))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return run(tmp_path_factory.mktemp("transfer") / "source", projection=16, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("file", ["", "best.pt", "checkpoint.pt"])
def test_a_run_begins_with_the_encoder_of_another(source, tmp_path, file):
    result = run(tmp_path / "run", init=str(source.run / file), projection=16)
    measured = source.records[1 if file else torch.load(source.run / "best.pt", weights_only=True)["epoch"]]
    if file == "best.pt":
        measured = max(source.records, key=lambda record: record["mAP"])
    assert result.records[0]["mAP"] == pytest.approx(measured["mAP"], abs=1e-6)


@pytest.mark.slow
def test_a_resumed_run_keeps_its_own_encoder(source, tmp_path):
    options = {"init": str(source.run), "projection": 16}
    whole = run(tmp_path / "whole", **options, epochs=2).records
    run(tmp_path / "parts", **options)
    resumed = run(tmp_path / "parts", **options, epochs=2, resume=True).records
    assert [record["loss"] for record in resumed] == [record["loss"] for record in whole]


def test_an_encoder_of_another_architecture_is_refused(source, tmp_path):
    with pytest.raises(InputError, match=r"--init: .*best.pt has another encoder: --projection 16 \(this run: 0\)"):
        run(tmp_path / "run", init=str(source.run))
    assert not (tmp_path / "run").exists()


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"--init: .*nowhere: no such checkpoint"):
        run(tmp_path / "run", init=str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"--init: .*it has neither best.pt nor checkpoint.pt"):
        run(tmp_path / "run", init=str(tmp_path))


@pytest.mark.slow
def test_features_of_the_projection_are_clustered_and_searched_with(source):
    content = torch.load(source.run / "best.pt", weights_only=True)
    assert content["model"]["neck.weight"].shape == (16,)
    assert content["config"]["projection"] == 16


def transformer(path, **options):
    """The options of a run of a small transformer, and its encoder."""
    config = TrainConfig(dataset="folder", data_dir=str(path), arch="timm/test_vit", weights="none", **options)
    return config, make_encoder(config, 3, "none")


def test_a_transformers_position_embeddings_follow_the_size(tmp_path):
    pytest.importorskip("timm", exc_type=(ImportError, RuntimeError))
    config, source = transformer(tmp_path, height=96, width=48)
    torch.nn.init.constant_(source.backbone.network.pos_embed, 0.5)
    torch.save({"config": config.stored(), "epoch": 1, "model": source.state_dict()}, tmp_path / "best.pt")
    config, encoder = transformer(tmp_path, height=64, width=32, init=str(tmp_path / "best.pt"))
    init_encoder(encoder, config)
    network, before = encoder.backbone.network, source.backbone.network
    assert torch.equal(network.blocks[0].attn.qkv.weight, before.blocks[0].attn.qkv.weight)
    assert network.pos_embed.shape[1] == 1 + 4 * 2
    torch.testing.assert_close(network.pos_embed, torch.full_like(network.pos_embed, 0.5))
    assert encoder(torch.rand(2, 3, 64, 32)).shape == (2, encoder.num_features)


def test_what_does_not_fit_is_named_with_both_shapes(tmp_path):
    wide, narrow = (build_encoder("smallconv", channels=channels, height=8, width=8) for channels in (3, 1))
    with pytest.raises(
        InputError, match=r"another architecture: .*backbone.0.weight \[32, 3, 3, 3\], here \[32, 1, 3, 3\]"
    ):
        load_model(narrow, {"model": wide.state_dict()}, tmp_path / "best.pt")
