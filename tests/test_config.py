"""The options of a run: recipes, presets, files, checks."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch
import yaml

from ccfast._errors import InputError
from ccfast.training import TrainConfig, device, train
from ccfast.training.config_file import check_unchanged, config_from_options, read_config, write_config
from ccfast.training.recipes import BUILT_IN, PRESETS, RECIPES, SMALL


def test_options_come_from_the_data_sets_recipe():
    digits, market = TrainConfig(), TrainConfig(dataset="market1501", data_dir="x")
    assert (digits.arch, digits.k1, digits.batch_size) == ("smallconv", 20, 64)
    assert (market.arch, market.weights, market.pooling, market.k1) == ("resnet50", "imagenet", "gem", 30)
    assert (market.height, market.width, market.batch_size, market.num_instances) == (256, 128, 256, 16)
    assert (market.lr, market.weight_decay, market.step_size, market.epochs) == (3.5e-4, 5e-4, 20, 50)
    assert (market.iters, market.eps, market.momentum, market.temperature) == (200, 0.6, 0.1, 0.05)
    assert market.bn_group == 64


def test_what_is_given_overrides_the_recipe():
    pytest.importorskip("infomap")
    assert TrainConfig(eps=0.3).eps == 0.3
    assert TrainConfig(cluster="infomap").k1 == 15
    assert TrainConfig(cluster="infomap", k1=7).k1 == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": 1.0}, r"--eps: expected a number in \[0, 1\), got 1.0"),
        ({"eps": float("nan")}, "--eps"),
        ({"k1": 0}, "--k1: expected at least 1, got 0"),
        ({"k1": 5, "k2": 6}, r"--k2: expected at most --k1 \(5\), got 6"),
        ({"min_samples": 0}, "--min-samples"),
        ({"batch_size": 10, "num_instances": 4}, r"--batch-size: expected a multiple of --num-instances \(4\)"),
        ({"batch_size": 4, "num_instances": 4}, "at least twice as large"),
        ({"lr": 0}, "--lr"),
        ({"temperature": -1}, "--temperature"),
        ({"momentum": 1.5}, "--momentum"),
        ({"epochs": 2.5}, "--epochs: expected an integer"),
        ({"workers": -1}, "--workers"),
        ({"memory": "best"}, "--memory: expected one of 'sequential', 'hardest', 'mean', got 'best'"),
        ({"dataset": "cifar"}, "--dataset: expected one of"),
        ({"dataset": "market1501"}, "--data-dir: expected the folder"),
    ],
)
def test_wrong_options_are_refused_by_name(options, message):
    with pytest.raises(InputError, match=message):
        TrainConfig(**options)


def test_config_survives_its_file(tmp_path):
    config = TrainConfig(dataset="market1501", data_dir="x", lr=1e-5, freeze_bn=True)
    write_config(tmp_path / "config.yaml", config)
    assert dataclasses.asdict(read_config(tmp_path / "config.yaml")) == dataclasses.asdict(config)


@pytest.mark.parametrize("text", ["- 1", "colour: red", "a: [", "eps: 7"])
def test_an_invalid_config_is_an_error(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError):
        read_config(tmp_path / "config.yaml")


def test_a_gpu_named_by_its_number_becomes_the_current_one(monkeypatch):
    chosen = []
    monkeypatch.setattr(device, "ccfast", SimpleNamespace(build_info=lambda: {"cuda": "13.0"}))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert device.choose_device(None) == torch.device("cuda")
    assert chosen == []
    assert device.choose_device("cuda:1") == torch.device("cuda:1")
    assert chosen == [torch.device("cuda:1")]
    with pytest.raises(InputError, match=r"--device cuda:2: there are 2 CUDA device\(s\)"):
        device.choose_device("cuda:2")


def test_cuda_without_cuda_is_refused():
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(InputError, match=r"--device cuda: .*finds no CUDA device"):
        train(TrainConfig(device="cuda"))


PUBLISHED_SIZES = {"market1501": (200, 256, 128), "msmt17": (400, 256, 128), "veri776": (400, 224, 224)}


@pytest.mark.parametrize(("preset", "sizes"), PUBLISHED_SIZES.items())
def test_presets_are_the_published_recipes(preset, sizes):
    config = config_from_options({"preset": preset, "data_dir": "x"})
    assert (config.iters, config.height, config.width) == sizes
    assert (config.dataset, config.cluster, config.eps, config.k1) == (preset, "dbscan", 0.6, 30)


def test_infomap_presets_change_the_clustering_only():
    pytest.importorskip("infomap")
    dbscan = config_from_options({"preset": "msmt17", "data_dir": "x"}).stored()
    infomap = config_from_options({"preset": "msmt17-infomap", "data_dir": "x"}).stored()
    assert {name for name in dbscan if dbscan[name] != infomap[name]} == {"cluster", "k1"}
    assert (infomap["k1"], infomap["min_similarity"], infomap["min_cluster_size"]) == (15, 0.5, 5)


def test_every_preset_names_a_data_set_and_every_data_set_has_a_whole_recipe():
    for name, preset in PRESETS.items():
        assert name == SMALL or preset["dataset"] in RECIPES
    for dataset in RECIPES:
        config = TrainConfig(dataset=dataset, data_dir=None if dataset in BUILT_IN else "x")
        assert not [name for name, value in config.stored().items() if value is None and name not in OPTIONAL]


OPTIONAL = {"data_dir", "source", "source_dir", "init", "device", "num_clusters"}


def test_command_line_goes_before_file_before_preset_before_recipe(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"lr": 1e-4, "iters": 7}))
    options = {"preset": "veri776", "config": str(file), "data_dir": "x", "iters": 9}
    config = config_from_options(options)
    assert (config.dataset, config.height, config.lr, config.iters) == ("veri776", 224, 1e-4, 9)


def test_a_runs_config_starts_the_same_run_again(tmp_path):
    config = TrainConfig(dataset="market1501", data_dir="x", lr=1e-5, compile=True)
    write_config(tmp_path / "config.yaml", config)
    assert config_from_options({"config": str(tmp_path / "config.yaml")}) == config
    other = config_from_options({"config": str(tmp_path / "config.yaml"), "compile": False})
    assert other == dataclasses.replace(config, compile=False)


def test_a_config_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"--config: .*mine.yaml: no such file"):
        config_from_options({"config": str(tmp_path / "mine.yaml")})


@pytest.mark.parametrize(
    ("text", "named"),
    [("freeze_bn: 'no'", "--freeze-bn"), ("arch: 5", "--arch"), ("data_dir: 5", "--data-dir"), ("run: [1]", "--run")],
)
def test_a_value_of_another_type_in_a_config_file_is_refused(tmp_path, text, named):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InputError, match=rf"^{named}: expected (true or false|text), got"):
        config_from_options({"config": str(tmp_path / "mine.yaml")})


def test_paths_may_be_path_objects(tmp_path):
    config = TrainConfig(dataset="folder", data_dir=tmp_path, run=tmp_path / "run")
    write_config(tmp_path / "config.yaml", config)
    assert read_config(tmp_path / "config.yaml").data_dir == str(tmp_path)


def test_groups_of_one_image_are_refused():
    with pytest.raises(InputError, match="--bn-group: expected 0 or at least 2, got 1"):
        TrainConfig(bn_group=1)


def test_a_preset_and_a_file_of_another_data_set_are_refused(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"dataset": "digits"}))
    with pytest.raises(InputError, match=r"--preset veri776: .*mine.yaml is for another data set, digits"):
        config_from_options({"preset": "veri776", "config": str(file), "data_dir": "x"})


def test_a_run_from_before_an_option_had_its_default(tmp_path):
    stored = TrainConfig().stored()
    del stored["projection"], stored["amp"]
    check_unchanged(stored, TrainConfig().stored(), tmp_path)
    with pytest.raises(InputError, match=r"--projection 64 \(the run has 0\)"):
        check_unchanged(stored, TrainConfig(projection=64).stored(), tmp_path)


def test_tensorboard_without_its_package_is_refused_before_anything_is_done(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="--tensorboard needs the package tensorboard"):
        TrainConfig(tensorboard=True)
