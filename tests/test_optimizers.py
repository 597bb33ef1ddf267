"""Optimisers, learning rate schedules, frozen parts: their effect, and exact resume."""

from __future__ import annotations

import math

import pytest
import torch
from processes import without_costs

from ccfast._errors import InputError
from ccfast.models import build_encoder
from ccfast.training import TrainConfig, loop, train
from ccfast.training.optimizers import OPTIMIZERS, make_optimizer, make_scheduler


def rates(epochs=8, **options):
    """The learning rate of each epoch, divided by --lr."""
    config = TrainConfig(epochs=epochs, lr=1.0, **options)
    optimizer = make_optimizer(torch.nn.Linear(2, 2), config)
    scheduler = make_scheduler(optimizer, config)
    found = []
    for _ in range(epochs):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"step_size": 3}, [1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01]),
        ({"step_size": 3, "warmup": 2}, [0.5, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01]),
        ({"schedule": "cosine"}, [(1 + math.cos(math.pi * epoch / 8)) / 2 for epoch in range(8)]),
        (
            {"schedule": "cosine", "warmup": 3},
            [1 / 3, 2 / 3, 1, *((1 + math.cos(math.pi * epoch / 5)) / 2 for epoch in range(5))],
        ),
    ],
)
def test_the_rate_of_each_epoch(options, expected):
    assert rates(**options) == pytest.approx(expected)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_is_that_of_torchs_optimiser(name):
    torch.manual_seed(0)
    layer, other = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
    other.load_state_dict(layer.state_dict())
    ours = make_optimizer(layer, TrainConfig(optimizer=name, lr=0.1, weight_decay=0.01))
    settings = {"momentum": 0.9} if name == "sgd" else {}
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[name]
    theirs = kind(other.parameters(), lr=0.1, weight_decay=0.01, **settings)
    rows = torch.rand(4, 3)
    for module, optimizer in ((layer, ours), (other, theirs)):
        for _ in range(3):
            optimizer.zero_grad()
            module(rows).square().sum().backward()
            optimizer.step()
    assert torch.equal(layer.weight, other.weight)


def run(path, **options):
    return train(TrainConfig(**{"epochs": 3, "iters": 2, "device": "cpu", "quiet": True, "run": str(path), **options}))


def interrupted(path, monkeypatch, **options):
    """A run that ends after its first epoch."""
    epoch = loop.Run.epoch

    def one(self):
        if self.state.epoch == 1:
            raise KeyboardInterrupt
        epoch(self)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(loop.Run, "epoch", one)
        run(path, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "sgd", "lr": 0.01, "schedule": "cosine", "warmup": 1},
        {"optimizer": "adamw", "warmup": 2, "step_size": 1},
        {"eps": "auto", "noise": "single"},
        {"cluster": "kmeans", "num_clusters": 12},
    ],
    ids=["sgd cosine", "adamw warm-up", "auto single", "kmeans"],
)
def test_an_interrupted_run_goes_on_exactly(options, tmp_path, monkeypatch):
    whole = run(tmp_path / "whole", **options)
    interrupted(tmp_path / "run", monkeypatch, **options)
    torch.manual_seed(1)
    resumed = run(tmp_path / "run", resume=True, **options)
    assert without_costs(resumed.records) == without_costs(whole.records)
    assert "last_ari" in resumed.records[2]  # compared with the clusters from before the interruption
    models = [torch.load(tmp_path / name / "checkpoint.pt")["model"] for name in ("whole", "run")]
    assert all(torch.equal(value, models[1][name]) for name, value in models[0].items())


@pytest.mark.slow
def test_what_a_resumed_run_cannot_change(tmp_path):
    run(tmp_path / "run", epochs=1, iters=1, schedule="cosine")
    with pytest.raises(InputError, match=r"--epochs: expected 1, as in .*, got 2: a cosine schedule"):
        run(tmp_path / "run", resume=True, epochs=2, iters=1, schedule="cosine")
    with pytest.raises(InputError, match=r"--optimizer sgd \(the run has adam\)"):
        run(tmp_path / "run", resume=True, epochs=1, iters=1, schedule="cosine", optimizer="sgd")


@pytest.mark.slow
def test_a_checkpoint_with_another_optimisers_state_is_refused(tmp_path):
    run(tmp_path / "run", epochs=1, iters=1, optimizer="sgd", lr=0.01)
    content = torch.load(tmp_path / "run" / "checkpoint.pt")
    for moments in content["optimizer"]["state"].values():
        moments["momentum_buffer"] = torch.zeros(1, 2, 3)
    torch.save(content, tmp_path / "run" / "checkpoint.pt")
    with pytest.raises(InputError, match="momentum_buffer does not fit a parameter"):
        run(tmp_path / "run", resume=True, epochs=2, iters=1, optimizer="sgd", lr=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "lamb"}, "--optimizer: expected one of 'adam', 'adamw', 'sgd', got 'lamb'"),
        ({"schedule": "linear"}, "--schedule: expected one of 'step', 'cosine', got 'linear'"),
        ({"warmup": -1}, "--warmup: expected at least 0, got -1"),
        ({"schedule": "cosine", "epochs": 3, "warmup": 3}, "--warmup: expected fewer than the 3 epochs, got 3"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        TrainConfig(**options)


@pytest.mark.slow
def test_a_frozen_patch_embedding_stays_as_it_is():
    pytest.importorskip("timm")
    sizes = {"channels": 3, "height": 32, "width": 32, "pooling": "average"}
    encoder = build_encoder("timm/vit_tiny_patch16_224", freeze_patch_embed=True, **sizes)
    frozen = [name for name, value in encoder.backbone.named_parameters() if not value.requires_grad]
    assert frozen == ["network.patch_embed.proj.weight", "network.patch_embed.proj.bias"]
    optimizer = make_optimizer(encoder, TrainConfig(optimizer="adamw", lr=0.1))
    before = encoder.backbone.network.patch_embed.proj.weight.clone()
    encoder(torch.rand(2, 3, 32, 32)).sum().backward()
    optimizer.step()
    assert torch.equal(encoder.backbone.network.patch_embed.proj.weight, before)


def test_networks_without_patches_are_refused_to_freeze_them():
    with pytest.raises(InputError, match="--freeze-patch-embed: --arch smallconv has no patch embedding"):
        build_encoder("smallconv", channels=1, height=8, width=8, pooling="average", freeze_patch_embed=True)
