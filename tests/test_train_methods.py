"""``ccfast train --method``: every method trains, resumes, runs in several processes, and refuses unsuitable data."""

from __future__ import annotations

import dataclasses
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from processes import together, without_costs

import ccfast
from ccfast._errors import InputError, RunError
from ccfast.commands.evaluate.measure import evaluate_checkpoint
from ccfast.data import load_data
from ccfast.methods import METHODS, method_class
from ccfast.methods.cross_modal import alternating
from ccfast.methods.pgm import progressive_matching
from ccfast.training import TrainConfig, config, train
from ccfast.training.clustering.pseudo_labels import Clustering
from ccfast.training.config_file import config_from_options
from ccfast.training.group import Group
from ccfast.training.loop import Run
from ccfast.training.recipes import PRESETS
from ccfast.training.run_folder.folder import RunFolder
from ccfast.training.stopwatch import Stopwatch

pytest.importorskip("PIL.Image")

from method_trees import QUICK, write_market, write_sysu

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def no_picture(monkeypatch):
    """No curves: drawing them takes longer than these runs."""
    monkeypatch.setattr("ccfast.training.messages.picture", lambda *args: None)


CROSS_MODAL = ("adca", "pgm")
WITH_CAMERAS = ("cap", "o2cap", "3c")


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trees")
    return {"market1501": write_market(folder / "market"), "sysumm01": write_sysu(folder / "sysu")}


def options_of(method, trees, **options):
    dataset = "sysumm01" if method in CROSS_MODAL else "market1501"
    return {**QUICK, "method": method, "dataset": dataset, "data_dir": str(trees[dataset]), "quiet": True, **options}


def run(path, method, trees, **options):
    return train(TrainConfig(run=str(path), **options_of(method, trees, **options)))


def method_on(data, name, **options):
    """A method that is prepared for ``data``."""
    made = TrainConfig(**{**QUICK, "dataset": data.name, "data_dir": "x", "method": name, **options})
    method = method_class(name)(made, data, CPU)
    method.prepare(data)
    return method


@pytest.fixture(scope="module")
def market(trees):
    return load_data("market1501", trees["market1501"])


@pytest.fixture(scope="module")
def sysu(trees):
    return load_data("sysumm01", trees["sysumm01"])


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_run_of_each_method_ends_as_an_uninterrupted_one(method, trees, tmp_path):
    whole = run(tmp_path / "whole", method, trees)
    run(tmp_path / "run", method, trees, epochs=1)
    torch.manual_seed(123)  # other random numbers in between
    resumed = run(tmp_path / "run", method, trees, resume=True)
    assert without_costs(resumed.records) == without_costs(whole.records)
    contents = [torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("whole", "run")]
    for part in ("model", "method"):
        assert contents[0][part].keys() == contents[1][part].keys()
        assert all(torch.equal(value, contents[1][part][name]) for name, value in contents[0][part].items())
    assert bool(contents[0]["method"]) == (method == "spcl")
    for record in whole.records[1:]:
        assert record["clusters"] >= 2 and record["loss"] > 0
    metrics = evaluate_checkpoint(tmp_path / "whole" / "checkpoint.pt", device="cpu")
    assert metrics["mAP"] == pytest.approx(whole.records[-1]["mAP"], abs=1e-6)
    assert ("indoor_search/mAP" in metrics) == (method in CROSS_MODAL)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["hhcl", "spcl", "o2cap", "3c", "pgm"])  # one for each kind of memory
def test_methods_train_under_autocast(method, trees, tmp_path):
    assert run(tmp_path / "run", method, trees, epochs=1, amp="bf16").records[-1]["loss"] > 0


@pytest.mark.parametrize("memory", ["CM", "CMhard", "CMhybrid_v2"])
def test_hhcl_trains_with_each_memory(memory, trees, tmp_path):
    assert run(tmp_path / "run", "hhcl", trees, epochs=1, memory=memory).records[-1]["loss"] > 0


def first_losses(group, trees, folder):
    """The loss of the first epoch by each method."""
    losses = {}
    for method in METHODS:
        images = 24 if method == "pgm" else 16  # in a batch
        made = TrainConfig(bn_group=images // 2, **{**options_of(method, trees), "epochs": 1, "eval_every": 2})
        data = load_data(made.dataset, made.data_dir)
        one = Run(made, data, RunFolder(folder / f"{method}-{group.size}"), CPU, group)
        if group.is_main:
            one.folder.path.mkdir(parents=True)
        one.start()
        one.epoch()
        losses[method] = one.records[-1]["loss"]
    return losses


@pytest.mark.slow
def test_processes_train_by_each_method_as_one_does(trees, tmp_path):
    alone = first_losses(Group(), trees, tmp_path)
    for found in together(2, partial(first_losses, trees=trees, folder=tmp_path), tmp_path):
        assert found.keys() == alone.keys()
        for method, loss in found.items():
            assert loss == pytest.approx(alone[method], rel=1e-3), method


# -- unsuitable data and options


@pytest.mark.parametrize("method", WITH_CAMERAS)
def test_camera_methods_refuse_data_without_cameras(method, tmp_path):
    message = f"--method {method}: expected training images from two or more cameras, got no cameras in digits"
    with pytest.raises(InputError, match=message):
        train(TrainConfig(method=method, run=str(tmp_path / "run"), device="cpu"))
    assert not (tmp_path / "run").exists()


def test_camera_methods_refuse_data_of_one_camera(tmp_path):
    data = load_data("market1501", write_market(tmp_path / "market", cameras=1))
    with pytest.raises(InputError, match="two or more cameras, got one camera"):
        method_on(data, "cap")


@pytest.mark.parametrize("method", CROSS_MODAL)
def test_cross_modal_methods_refuse_data_of_one_kind(method, market, sysu):
    with pytest.raises(InputError, match=f"--method {method}: expected visible and infrared .* got no infrared ones"):
        method_on(market, method)
    visible = dataclasses.replace(sysu, infrared_cams=())
    with pytest.raises(InputError, match="got no infrared ones"):
        method_on(visible, method)
    with pytest.raises(InputError, match="got no visible ones"):
        method_on(dataclasses.replace(sysu, infrared_cams=(1, 2, 3, 4, 5, 6)), method)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("spcl", {"eps": 0.99}, r"--eps: expected a number in \[0.02, 0.98\) with --method spcl"),
        ("spcl", {"eps": 0.01}, "--eps"),
        ("adca", {"k1": 40}, "--k1: expected at most the 36 infrared training images, got 40"),
        ("pgm", {"batch_size": 12}, r"--batch-size: expected a multiple of twice --num-instances \(8\)"),
    ],
)
def test_options_that_do_not_suit_a_method_are_refused(method, options, message, market, sysu):
    with pytest.raises(InputError, match=message):
        method_on(sysu if method in CROSS_MODAL else market, method, **options)


def test_spcl_needs_dbscan(market):
    pytest.importorskip("infomap")
    with pytest.raises(InputError, match="--cluster: expected dbscan with --method spcl, got infomap"):
        method_on(market, "spcl", cluster="infomap")


def test_a_method_has_its_defaults_and_the_command_line_overrides_them():
    cap = TrainConfig(method="cap")
    assert (cap.temperature, cap.momentum, cap.memory) == (0.07, 0.2, None)
    assert TrainConfig(method="cap", momentum=0.5).momentum == 0.5
    contrast = TrainConfig()
    assert (contrast.temperature, contrast.momentum, contrast.memory) == (0.05, 0.1, "sequential")
    assert TrainConfig(method="hhcl").memory == "CMhybrid"
    with pytest.raises(InputError, match=r"--memory: expected one of 'CMhybrid', 'CM', .* got 'hardest'"):
        TrainConfig(method="hhcl", memory="hardest")
    with pytest.raises(InputError, match="--memory: expected no value with --method cap, got hardest"):
        TrainConfig(method="cap", memory="hardest")


def test_the_help_names_the_memories_of_each_method():
    for name in METHODS:
        memories = ", ".join(method_class(name).memories)
        assert memories in config.MEMORIES
        assert not memories or name in config.MEMORIES


@pytest.mark.slow
def test_another_method_is_no_way_to_go_on(trees, tmp_path):
    run(tmp_path / "run", "cluster-contrast", trees, epochs=1)
    with pytest.raises(InputError, match=r"--method hhcl \(the run has cluster-contrast\)"):
        run(tmp_path / "run", "hhcl", trees, resume=True)


@pytest.mark.slow
def test_a_run_from_before_there_were_methods_goes_on(trees, tmp_path):
    whole = run(tmp_path / "whole", "cluster-contrast", trees)
    run(tmp_path / "run", "cluster-contrast", trees, epochs=1)
    content = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    del content["method"], content["config"]["method"]
    torch.save(content, tmp_path / "run" / "checkpoint.pt")
    (tmp_path / "run" / "config.yaml").unlink()
    resumed = train(config_from_options({"run": str(tmp_path / "run"), "resume": True, "epochs": 2}))
    assert without_costs(resumed.records) == without_costs(whole.records)


def test_presets_of_methods_have_the_papers_values():
    assert {preset.get("method", "cluster-contrast") for preset in PRESETS.values()} == {
        "cluster-contrast", "hhcl", "spcl", "cap", "o2cap", "3c"
    }  # fmt: skip
    hhcl = config_from_options({"preset": "hhcl-dukemtmcreid", "data_dir": "x"})
    assert (hhcl.memory, hhcl.pooling, hhcl.eps, hhcl.epochs) == ("CMhybrid", "average", 0.6, 60)
    cap = config_from_options({"preset": "cap-market1501", "data_dir": "x"})
    assert (cap.batch_size, cap.num_instances, cap.eps, cap.k1, cap.temperature) == (32, 4, 0.5, 20, 0.07)
    spcl = config_from_options({"preset": "spcl-msmt17", "data_dir": "x"})
    assert (spcl.batch_size, spcl.num_instances, spcl.iters, spcl.momentum) == (64, 4, 800, 0.2)


@pytest.mark.slow
def test_the_learning_rate_warms_up_and_falls(trees, tmp_path):
    options = {"epochs": 5, "warmup": 2, "step_size": 3, "iters": 1, "lr": 1e-3}
    whole = run(tmp_path / "whole", "cluster-contrast", trees, **options).records
    assert [record["lr"] for record in whole[1:]] == pytest.approx([5e-4, 1e-3, 1e-3, 1e-4, 1e-4])
    run(tmp_path / "run", "cluster-contrast", trees, **{**options, "epochs": 1})
    resumed = run(tmp_path / "run", "cluster-contrast", trees, **options, resume=True).records
    assert without_costs(resumed) == without_costs(whole)


# -- what the methods compute


def cluster_by(labels):
    """A clustering with fixed ``labels`` [N], or with one row of a table for each of three radii."""

    class Known(Clustering):
        def __call__(self, features, images="images"):
            return labels.pop(0) if isinstance(labels, list) else labels

        def at_radii(self, features, radii):
            assert radii == pytest.approx((0.7, 0.68, 0.72))
            return list(labels)

    return Known(TrainConfig(), Stopwatch(CPU))


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_spcl_clusters_its_memory_and_relies_on_what_the_criterion_keeps(market):
    method = method_on(market, "spcl")
    rows, count = unit(72, 8), []
    assert torch.equal(method.features(lambda: count.append(1) or rows), rows)
    labels = torch.arange(72) // 12
    labels[60:] = -1
    tight, loose = labels.clone(), labels.clone()
    loose[labels == 1] = 0  # two clusters merge
    loose[labels == 0] = 0
    found = method.pseudo_labels(rows, cluster_by([labels, tight, loose]))
    expected = ccfast.nn.HybridMemory(8, 72).relabel(labels, tight, loose)
    assert torch.equal(method.memory.labels, expected)
    assert (found == -1).sum() == sum(int((expected == label).sum()) == 1 for label in expected.tolist())
    assert found.unique().tolist() == list(range(int(found.min()), int(found.max()) + 1))
    drawn = {index for batch in method.sampler(found, 20, torch.Generator().manual_seed(0)) for index, _ in batch}
    assert drawn & set(range(60, 72)), "each image in no cluster is always a separate class"
    before = method.memory.features.clone()
    batch = unit(4, 8, seed=1).requires_grad_()
    method.criterion(batch, found[:4], torch.arange(4)).backward()
    moved = (method.memory.features != before).any(1).nonzero()[:, 0]
    assert moved.tolist() == [0, 1, 2, 3]
    assert method.features(lambda: count.append(1)) is method.memory.features and len(count) == 1


def test_a_memory_of_another_number_of_images_is_refused(market):
    method = method_on(market, "spcl")
    method.features(lambda: unit(72, 8))
    state = method.state_dict()
    other = method_on(market, "spcl")
    other.load_state_dict(state)
    assert torch.equal(other.memory.features, method.memory.features)
    with pytest.raises(InputError, match="memory has rows for 5 images, but there are 72 now"):
        other.load_state_dict({**state, "features": unit(5, 8)})


@pytest.mark.parametrize(("name", "first", "second"), [("cap", "cameras", "labels"), ("o2cap", "labels", "cameras")])
def test_proxies_are_the_means_of_a_camera_of_a_cluster_in_the_papers_order(name, first, second, market):
    method, rows = method_on(market, name), unit(72, 8)
    labels = torch.randint(-1, 5, (72,), generator=torch.Generator().manual_seed(1))
    method.start_epoch(rows, labels, epoch=0)
    memory = method.memory
    keys = list(zip(getattr(memory, first).tolist(), getattr(memory, second).tolist(), strict=True))
    assert keys == sorted(set(keys))
    for label, camera, feature in zip(memory.labels, memory.cameras, memory.features, strict=True):
        own = rows[(labels == label) & (method.cameras == camera)]
        torch.testing.assert_close(feature, F.normalize(own.mean(0), dim=0))
    assert (method.proxy == -1).tolist() == (labels == -1).tolist()
    for batch in method.sampler(labels, 5, torch.Generator().manual_seed(0)):
        images = torch.tensor([index for index, _ in batch])
        assert (method.proxy[images].view(-1, 4) == method.proxy[images][::4, None]).all()


@pytest.mark.parametrize(("epochs", "first"), [(60, 5), (50, 5), (20, 2), (5, 0)])
def test_cap_looks_across_cameras_after_a_tenth_of_the_epochs_at_most_five(market, epochs, first):
    method, labels = method_on(market, "cap", epochs=epochs), torch.arange(72) // 12
    for epoch in range(8):
        method.start_epoch(unit(72, 8), labels, epoch)
        assert method.memory.intra and method.memory.offline == (epoch >= first)


def test_o2cap_takes_the_negatives_that_there_are(market):
    method = method_on(market, "o2cap")
    method.start_epoch(unit(72, 8), torch.arange(72) // 12, epoch=0)
    proxies = len(method.memory.features)
    assert 3 < proxies < 53 and method.memory.num_negatives == proxies - 3
    with pytest.raises(RunError, match=r"3 proxies .* needs more than 3; try a smaller --eps"):
        method.start_epoch(unit(72, 8), torch.zeros(72, dtype=torch.int64), epoch=0)


def test_cross_modal_labels_batches_and_loss(sysu):
    method = method_on(sysu, "adca")
    infrared = sysu.is_infrared()
    assert infrared.sum() == 36 and len(infrared) == 108
    rows, of_visible, of_infrared = unit(108, 8), torch.arange(72) % 6, torch.arange(36) % 4
    of_infrared[:2] = -1
    labels = method.pseudo_labels(rows, cluster_by([of_visible, of_infrared]))
    assert torch.equal(labels[~infrared], of_visible)
    assert torch.equal(labels[infrared], torch.where(of_infrared >= 0, of_infrared + 6, -1))
    for batch in method.sampler(labels, 3, torch.Generator().manual_seed(0)):
        kinds = infrared[[index for index, _ in batch]]
        assert kinds.tolist() == [False, True] * 8
    method.start_epoch(rows, labels, epoch=0)
    first, second = (memory.features.clone() for memory in (method.memory.visible, method.memory.infrared))
    batch = torch.tensor([0, 1, 40, 100, 107])
    x = unit(5, 8, seed=1).requires_grad_()
    loss = method.criterion(x, labels[batch], batch)
    visible, found = ~infrared[batch], labels[batch]
    expected = ccfast.centroid_contrastive_loss(x[visible], first, found[visible], 0.05)
    expected = expected + ccfast.centroid_contrastive_loss(x[~visible], second, found[~visible] - 6, 0.05)
    torch.testing.assert_close(loss, expected)


def test_adca_begins_visible_clusters_as_the_infrared_ones_that_match(sysu):
    method = method_on(sysu, "adca")
    identity = sysu.train.ids - 1
    rows = F.normalize(torch.eye(8)[identity] + 0.01 * unit(108, 8), dim=1)
    infrared = sysu.is_infrared()
    labels = torch.where(infrared, 6 + (identity + 2) % 6, identity)
    method.num_visible = 6
    method.start_epoch(rows, labels, epoch=0)
    centroids = ccfast.cluster_centroids(rows, labels)
    merged = 0.1 * centroids[:6] + 0.9 * centroids[6:][(torch.arange(6) + 2) % 6]
    torch.testing.assert_close(method.memory.visible.features, merged)
    torch.testing.assert_close(method.memory.infrared.features, centroids[6:])


def test_pgm_takes_turns_and_matches_clusters(sysu):
    method = method_on(sysu, "pgm")
    identity = sysu.train.ids - 1
    rows = F.normalize(torch.eye(8)[identity] + 0.01 * unit(108, 8), dim=1)
    labels = torch.where(sysu.is_infrared(), 6 + (identity + 2) % 6, identity)
    method.num_visible = 6
    method.start_epoch(rows, labels, epoch=0)
    assert method.cross()["cross"] == "infrared"
    assert method.cross()["mapping"].tolist() == [(i + 2) % 6 for i in range(6)]
    method.start_epoch(rows, labels, epoch=1)
    assert method.cross()["cross"] == "visible"
    assert method.cross()["mapping"].tolist() == [(i - 2) % 6 for i in range(6)]
    sampler = method.sampler(labels, 2, torch.Generator().manual_seed(0))
    for batch in sampler:
        assert len(batch) == sampler.batch_size == 24
        visible = [item for item in batch if not sysu.is_infrared()[item[0]]]
        assert len(visible) == 16 and len(set(visible)) == 16
        assert sorted(index for index, _ in visible[:8]) == sorted(index for index, _ in visible[8:])


def test_every_cluster_is_matched_and_the_columns_are_used_evenly():
    similarity = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.6], [0.1, 0.0], [0.0, 0.3]])
    assert progressive_matching(similarity).tolist() == [0, 0, 1, 0, 1]
    assert progressive_matching(similarity.T).tolist() == [0, 2]
    assert progressive_matching(torch.zeros(0, 3)).tolist() == []


def test_lists_alternate_evenly():
    assert alternating([1, 2, 3, 4], ["a", "b"]) == [1, "a", 2, 3, "b", 4]
    assert alternating([1], []) == [1]
