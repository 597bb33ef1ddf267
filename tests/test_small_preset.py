"""``--preset small``: one recipe for small data; learning rate and BatchNorm depend on the initial weights."""

from __future__ import annotations

import csv

import pytest
import yaml

from ccfast._errors import InputError
from ccfast.cli import main
from ccfast.training import TrainConfig
from ccfast.training.config_file import config_from_options, read_config
from ccfast.training.recipes import FROM_LEARNT, FROM_RANDOM, PRESETS, RECIPES

SMALL = PRESETS["small"]


def small(**options):
    return config_from_options({"preset": "small", **options})


def has(config, recipe):
    return {name: getattr(config, name) for name in recipe} == recipe


def test_without_a_data_set_it_is_the_digits():
    config = small()
    assert config.dataset == "digits" and has(config, SMALL) and has(config, FROM_RANDOM)
    assert config.arch == "smallconv" and config.height == 8, "encoder and size are the data set's"


LEARNT = [
    {"dataset": "folder"},
    {"dataset": "market1501", "arch": "resnet18"},
    {"dataset": "csv", "weights": "weights.pth"},
    {"dataset": "omniglot", "init": "runs/source"},
    {"dataset": "folder", "weights": "none", "init": "runs/source"},
    {"arch": "resnet18", "weights": "imagenet"},
]
RANDOM = [
    {"dataset": "omniglot"},
    {"dataset": "digits", "weights": "none"},
    {"dataset": "folder", "weights": "none", "arch": "resnet18"},
]


@pytest.mark.parametrize("options", LEARNT)
def test_learnt_weights_keep_their_statistics_and_learn_slowly(options):
    config = small(data_dir="x", **options)
    assert has(config, SMALL) and has(config, FROM_LEARNT) and config.freeze_bn


@pytest.mark.parametrize("options", RANDOM)
def test_random_weights_have_no_statistics_to_keep(options):
    config = small(data_dir="x", **options)
    assert has(config, SMALL) and has(config, FROM_RANDOM) and not config.freeze_bn
    assert config.lr > FROM_LEARNT["lr"]


def test_what_is_said_goes_before_the_preset(tmp_path):
    said = {
        "lr": 3e-5,
        "epochs": 9,
        "eps": 0.55,
        "freeze_bn": False,
        "batch_size": 64,
        "num_instances": 4,
        "cache": "none",
    }
    config = small(dataset="folder", data_dir="x", **said)
    assert has(config, said)
    assert config.k1 == SMALL["k1"]
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"dataset": "folder", "data_dir": "x", "weights": "none", "iters": 3}))
    config = small(config=str(file), epochs=1)
    assert (config.dataset, config.iters, config.epochs) == ("folder", 3, 1)
    assert config.lr == FROM_RANDOM["lr"], "the weights of the file decide"


@pytest.mark.parametrize("method", ["cluster-contrast", "hhcl", "spcl", "cap", "o2cap", "3c"])
def test_it_goes_with_every_method(method):
    config = small(dataset="market1501", data_dir="x", method=method)
    assert has(config, SMALL) and config.method == method
    assert config.temperature == TrainConfig(method=method).temperature


def test_a_preset_that_there_is_none_of_is_named():
    with pytest.raises(InputError, match=r"--preset: expected one of small, market1501, .* got 'tiny'"):
        config_from_options({"preset": "tiny"})


@pytest.mark.parametrize("dataset", ["flowers", 3, ["folder"]])
def test_a_data_set_that_there_is_none_of_is_named(dataset):
    with pytest.raises(InputError, match="--dataset: expected"):
        small(dataset=dataset)


def test_every_data_set_has_values_for_it():
    for dataset in RECIPES:
        assert small(dataset=dataset, data_dir="x").eps == SMALL["eps"]


QUICK = ["--epochs", "1", "--iters", "1", "--workers", "0", "--device", "cpu", "--quiet"]


@pytest.mark.slow
def test_the_command_line_trains_by_it_and_resumes(tmp_path):
    run = str(tmp_path / "run")
    small_digits = ["train", "--preset", "small", "--batch-size", "64", "--run", run, *QUICK]
    assert main(small_digits) == 0
    stored = read_config(tmp_path / "run" / "config.yaml")
    assert (stored.eps, stored.lr, stored.freeze_bn, stored.cache) == (SMALL["eps"], FROM_RANDOM["lr"], False, "ram")
    assert main([*small_digits, "--resume"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "csv"])
def test_it_trains_on_images_of_ones_own(kind, tmp_path):
    pytest.importorskip("torchvision")
    from tiny_run import write_pictures

    images = write_pictures(tmp_path / "images")
    table = tmp_path / "images.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([["path"], *([str(path)] for path in images)])
    run, data = tmp_path / "run", tmp_path / "images" if kind == "folder" else table
    encoder = [
        "--arch",
        "resnet18",
        "--weights",
        "none",
        "--height",
        "32",
        "--width",
        "32",
        "--k1",
        "5",
        "--k2",
        "2",
        "--eps",
        "0.7",
    ]
    options = ["--dataset", kind, "--data-dir", str(data), "--run", str(run), "--batch-size", "8"]
    assert main(["train", "--preset", "small", *options, "--num-instances", "4", *encoder, *QUICK]) == 0
    assert read_config(run / "config.yaml").cache == SMALL["cache"]
    # the resumed command names no data set: the weights of the run decide
    assert main(["train", "--preset", "small", "--run", str(run), "--resume", "--batch-size", "8", "--num-instances",
                 "4", "--k1", "5", "--eps", "0.7", *QUICK]) == 0  # fmt: skip
