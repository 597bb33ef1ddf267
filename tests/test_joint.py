"""``ccfast train --source``: a labelled source with the target, in SpCL's memory of both."""

from __future__ import annotations

import copy
import csv
from functools import partial

import pytest
import torch
from processes import together, without_costs

import ccfast
from ccfast._errors import InputError
from ccfast.cli import main
from ccfast.data import load_data
from ccfast.methods import METHODS, method_class
from ccfast.methods.method import prepared
from ccfast.methods.source import Source, WithSource, class_labels
from ccfast.training import TrainConfig, train

pytest.importorskip("PIL.Image")

from method_trees import QUICK, write_market

CPU = torch.device("cpu")
#: Training images of the target and classes of the source.
IMAGES, CLASSES = 72, 6


@pytest.fixture(autouse=True)
def no_picture(monkeypatch):
    """No curves: drawing them takes longer than these runs."""
    monkeypatch.setattr("ccfast.training.messages.picture", lambda *args: None)


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    folder = tmp_path_factory.mktemp("joint")
    return {"data_dir": str(write_market(folder / "target")), "source_dir": str(write_market(folder / "source", 2))}


def options_of(trees, **options):
    joint = {"method": "spcl", "dataset": "market1501", "source": "market1501", "quiet": True, **trees}
    return {**QUICK, **joint, **options}


def run(path, trees, **options):
    return train(TrainConfig(run=str(path), **options_of(trees, **options)))


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["none", "ram"])
def test_a_resumed_joint_run_ends_as_an_uninterrupted_one(cache, trees, tmp_path):
    whole = run(tmp_path / "whole", trees, cache=cache)
    run(tmp_path / "run", trees, cache=cache, epochs=1)
    torch.manual_seed(123)  # other random numbers in between
    resumed = run(tmp_path / "run", trees, cache=cache, resume=True)
    assert without_costs(resumed.records) == without_costs(whole.records)
    first, second = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("whole", "run"))
    for part in ("model", "method"):
        assert all(torch.equal(value, second[part][name]) for name, value in first[part].items())
    memory = first["method"]
    assert len(memory["features"]) == len(memory["labels"]) == CLASSES + IMAGES
    assert memory["labels"][:CLASSES].tolist() == list(range(CLASSES))
    assert memory["labels"][CLASSES:].min() >= CLASSES, "a cluster of the target never shares a class of the source"
    assert len(first["labels"]) == IMAGES, "pseudo-labels are the target's"
    for record in whole.records[1:]:
        assert record["clusters"] >= 2 and record["loss"] > 0
    with (tmp_path / "whole" / "clusters.csv").open(newline="") as table:
        assert len(list(csv.DictReader(table))) == IMAGES


@pytest.mark.slow
def test_the_source_changes_what_is_learnt(trees, tmp_path):
    joint = run(tmp_path / "joint", trees, epochs=1).records
    alone = run(tmp_path / "alone", {"data_dir": trees["data_dir"]}, epochs=1, source=None).records
    assert joint[0]["mAP"] == alone[0]["mAP"] and joint[1]["clusters"] == alone[1]["clusters"]
    assert joint[1]["loss"] > alone[1]["loss"], "the loss is the sum of both"


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"amp": "bf16"}, {"mean_teacher": True, "teacher_momentum": 0.5}])
def test_it_goes_with_other_options(options, trees, tmp_path):
    assert run(tmp_path / "run", trees, epochs=1, **options).records[-1]["loss"] > 0


def losses(group, trees, folder):
    """Loss of an epoch of a joint run, and the memory at its end."""
    from ccfast.training.data_of import data_of, source_of
    from ccfast.training.loop import Run
    from ccfast.training.run_folder.folder import RunFolder

    config = TrainConfig(bn_group=8, **{**options_of(trees), "epochs": 1, "eval_every": 2})
    data = data_of(config)
    one = Run(config, data, RunFolder(folder / f"run-{group.size}"), CPU, group, source_of(config, data))
    if group.is_main:
        one.folder.path.mkdir(parents=True)
    one.start()
    one.epoch()
    return {"loss": one.records[-1]["loss"], "rows": one.method.memory.features}


@pytest.mark.slow
def test_processes_learn_jointly_as_one_does(trees, tmp_path):
    from ccfast.training.group import Group

    alone = losses(Group(), trees, tmp_path)
    for found in together(2, partial(losses, trees=trees, folder=tmp_path), tmp_path):
        assert found["loss"] == pytest.approx(alone["loss"], rel=1e-3)
        torch.testing.assert_close(found["rows"], alone["rows"], rtol=0, atol=2e-2)


# -- what the method computes


def unit(*shape, seed=0):
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows, dim=1)


@pytest.fixture
def method(trees):
    """SpCL on the target and a source with three classes of two images, with a filled memory."""
    source = Source(torch.tensor([2, 0, 1, 1, 2, 0]), None, lambda: unit(6, 8, seed=1))
    config = TrainConfig(**options_of(trees, batch_size=8, num_instances=2))
    made = prepared(method_class("spcl"), config, load_data("market1501", trees["data_dir"]), CPU, source)
    rows = made.features(lambda: unit(IMAGES, 8))
    assert torch.equal(rows, unit(IMAGES, 8))
    return made


def test_the_memory_begins_with_the_means_of_the_classes(method):
    means = ccfast.cluster_centroids(unit(6, 8, seed=1), method.source.labels)
    assert torch.equal(method.memory.features, torch.cat([means, unit(IMAGES, 8)]))


def relabelled(method):
    """Six clusters of twelve images that are the same at every radius, and images in no cluster."""
    labels = torch.arange(IMAGES) // 12
    labels[60:] = -1

    class Known:
        def at_radii(self, features, radii):
            assert len(features) == IMAGES, "the rows of the source are not clustered"
            return [labels] * 3

    return method.pseudo_labels(method.features(None), Known())


def test_labels_of_the_target_come_after_the_classes(method):
    found = relabelled(method)
    assert found.tolist() == [*(row // 12 for row in range(60)), *[-1] * 12]
    expected = [0, 1, 2, *(3 + row // 12 for row in range(60)), *range(3 + 5, 3 + 5 + 12)]
    assert method.memory.labels.tolist() == expected


def test_a_batch_has_target_images_and_then_as_many_of_the_source(method):
    found = relabelled(method)
    sampler = method.sampler(found, 4, torch.Generator().manual_seed(0))
    assert isinstance(sampler, WithSource) and len(sampler) == 4
    for batch in sampler:
        images = torch.tensor([index for index, _ in batch])
        assert len(batch) == sampler.batch_size == 8 + 6  # all three classes of two images
        assert images[:8].max() < IMAGES <= images[8:].min()
        classes = method.source.labels[images[8:] - IMAGES].view(-1, 2)
        assert (classes[:, 0] == classes[:, 1]).all() and len(classes[:, 0].unique()) == 3
    again = method.sampler(found, 4, torch.Generator().manual_seed(0))
    assert list(again) == list(method.sampler(found, 4, torch.Generator().manual_seed(0)))


def test_the_loss_is_that_of_two_calls_on_one_memory(method):
    relabelled(method)
    memory = copy.deepcopy(method.memory)
    indices = torch.tensor([0, 1, 12, 13, 24, 25, 60, 61, IMAGES, IMAGES + 1, IMAGES + 2])
    classes = method.source.labels[indices[8:] - IMAGES]
    x = unit(11, 8, seed=2).requires_grad_()
    loss = method.criterion(x, torch.cat([torch.zeros(8, dtype=torch.int64), classes]), indices)
    loss.backward()
    y = unit(11, 8, seed=2).requires_grad_()
    expected = memory(y[8:], classes) + memory(y[:8], 3 + indices[:8])
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(x.grad, y.grad)
    assert torch.equal(method.memory.features, memory.features)
    moved = (method.memory.features != before(method)).any(1).nonzero()[:, 0]
    assert moved.tolist() == sorted({*classes.tolist(), *(3 + indices[:8]).tolist()})


def before(method):
    """The memory's first rows."""
    return torch.cat([ccfast.cluster_centroids(unit(6, 8, seed=1), method.source.labels), unit(IMAGES, 8)])


# -- options and data that are refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source_dir": None}, "--source-dir: expected the folder that holds the images of 'market1501', got none"),
        ({"source": None}, "--source-dir: only with --source"),
        ({"source": "flowers"}, "--source: expected one of .* got 'flowers'"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message, trees):
    with pytest.raises(InputError, match=message):
        TrainConfig(**options_of(trees, **options))


@pytest.mark.parametrize("method", [name for name in METHODS if name != "spcl"])
def test_methods_without_a_joint_form_are_refused(method, trees):
    message = f"--source: --method {method} cannot also learn from a labelled source; expected spcl"
    with pytest.raises(InputError, match=message):
        TrainConfig(**options_of(trees, method=method))


def test_a_source_without_identities_is_refused(trees, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for path in (tmp_path / trees["source_dir"] / "bounding_box_train").glob("*.png"):
        (pictures / path.name.replace("_", "")).write_bytes(path.read_bytes())
    with pytest.raises(
        InputError, match=f"--source-dir: {pictures}: the identities of its training images are unknown"
    ):
        run(tmp_path / "run", trees, source="folder", source_dir=str(pictures))
    assert not (tmp_path / "run").exists()


def test_a_source_that_is_not_there_or_of_other_channels_is_refused(trees, tmp_path, capsys):
    with pytest.raises(InputError, match=r"--source-dir: no such folder: .*nowhere"):
        run(tmp_path / "run", trees, source_dir=str(tmp_path / "nowhere"))
    options = {"source": "digits", "source_dir": None}
    with pytest.raises(InputError, match=r"--source digits: expected images of 3 channels, as .* has, got 1"):
        run(tmp_path / "run", trees, **options)
    arguments = ["train", "--method", "hhcl", "--source", "digits", "--run", str(tmp_path / "run")]
    assert main(arguments) == 2 and "--method hhcl cannot also learn" in capsys.readouterr().err


@pytest.mark.parametrize(("ids", "message"), [(None, "are unknown"), ([3, 3], "two or more identities, got 1")])
def test_classes_need_two_identities(ids, message):
    with pytest.raises(InputError, match=f"mine: .*{message}"):
        class_labels(None if ids is None else torch.tensor(ids), "mine")
    assert class_labels(torch.tensor([7, 3, 7, 9]), "mine").tolist() == [1, 0, 1, 2]


@pytest.mark.slow
def test_a_run_keeps_its_source_but_not_its_folder(trees, tmp_path):
    run(tmp_path / "run", trees, epochs=1)
    with pytest.raises(InputError, match=r"--source msmt17 \(the run has market1501\)"):
        run(tmp_path / "run", trees, source="msmt17", resume=True)
    moved = tmp_path / "moved"
    moved.symlink_to(trees["source_dir"])
    assert len(run(tmp_path / "run", {**trees, "source_dir": str(moved)}, resume=True).records) == 3


@pytest.mark.slow
def test_digits_learn_from_digits_by_the_command_line(tmp_path):
    arguments = ["train", "--method", "spcl", "--source", "digits", "--epochs", "1", "--iters", "3", "--device", "cpu"]
    assert main([*arguments, "--run", str(tmp_path / "run")]) == 0
    assert main(["evaluate", str(tmp_path / "run"), "--device", "cpu"]) == 0
