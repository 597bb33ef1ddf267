"""SYSU-MM01: its folders, and its two searches against a calculation by hand."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ccfast._errors import InputError
from ccfast.data import load_data
from ccfast.data.sets.sysumm01 import sysumm01_protocols
from ccfast.training.evaluate import evaluate

pytest.importorskip("PIL.Image")

from image_trees import write_lists, write_tree

METRICS = ["mAP", "rank1", "rank5", "rank10", "mINP"]
IDS = {"exp/train_id.txt": ["2,5"], "exp/val_id.txt": ["9"], "exp/test_id.txt": ["6,10,11"]}
SHOTS = ["0001.jpg", "0002.jpg", "0003.jpg"]


def write_sysumm01(root, lists=IDS):
    """Six identities in six cameras, three images each; identity 11 was never seen by camera 4."""
    folders = [f"cam{camera}/{identity:04d}" for camera in range(1, 7) for identity in (2, 5, 6, 9, 10, 11)]
    write_lists(root, lists)
    return write_tree(root, {folder: SHOTS for folder in folders if folder != "cam4/0011"})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return load_data("sysumm01", write_sysumm01(tmp_path_factory.mktemp("sysu") / "SYSU-MM01").parent)


def test_training_takes_both_kinds_of_images_of_both_training_lists(data):
    assert len(data.train) == 3 * 6 * 3
    assert data.train.ids.unique().tolist() == [2, 5, 9]
    assert data.train.cams.unique().tolist() == [1, 2, 3, 4, 5, 6]


def test_infrared_test_images_are_searched_for_among_visible_ones(data):
    assert data.query.ids.unique().tolist() == data.gallery.ids.unique().tolist() == [6, 10, 11]
    assert data.query.cams.unique().tolist() == [3, 6]
    assert data.gallery.cams.unique().tolist() == [1, 2, 4, 5]
    assert (len(data.query), len(data.gallery)) == (18, 33)


@pytest.mark.parametrize(
    ("name", "cameras", "images"), [("all_search", [1, 2, 4, 5], 11), ("indoor_search", [1, 2], 6)]
)
def test_a_trial_has_one_image_for_each_identity_and_camera(data, name, cameras, images):
    protocol = data.protocols[name]
    assert len(protocol.trials) == 10
    for trial in protocol.trials:
        rows = torch.cat([comparison.gallery for comparison in trial]).unique()
        shots = list(zip(data.gallery.ids[rows].tolist(), data.gallery.cams[rows].tolist(), strict=True))
        assert len(shots) == len(set(shots)) == images
        assert sorted({camera for _, camera in shots}) == cameras
        assert torch.cat([comparison.query for comparison in trial]).sort().values.tolist() == list(range(18))


def test_queries_of_camera_3_are_not_searched_for_in_camera_2(data):
    for protocol in data.protocols.values():
        for trial in protocol.trials:
            for comparison in trial:
                of_camera_3 = bool((data.query.cams[comparison.query] == 3).all())
                assert bool((data.gallery.cams[comparison.gallery] == 2).any()) != of_camera_3


def test_trials_draw_what_pythons_generator_draws_with_their_number(data):
    folders = sorted((path.split("/")[-2], path.split("/")[-3], path) for path in data.gallery.images.paths)
    for number, trial in enumerate(data.protocols["all_search"].trials):
        draw = random.Random(number)
        expected = [
            draw.choice([path for identity, camera, path in folders if (identity, camera) == shot])
            for shot in sorted({(identity, camera) for identity, camera, _ in folders})
        ]
        rows = torch.cat([comparison.gallery for comparison in trial]).unique()
        assert sorted(data.gallery.images.paths[row] for row in rows.tolist()) == sorted(expected)


def single_shot_by_hand(data, distances, protocol):
    """Mean over trials of the mean over queries: no images of camera 2 for camera 3, ranks over identities."""
    q_ids, q_cams = data.query.ids.numpy(), data.query.cams.numpy()
    g_ids, g_cams = data.gallery.ids.numpy(), data.gallery.cams.numpy()
    means = []
    for trial in protocol.trials:
        drawn = torch.cat([comparison.gallery for comparison in trial]).unique().numpy()
        found = []
        for query, row in enumerate(distances):
            order = [image for image in drawn[np.argsort(row[drawn], kind="stable")]]
            order = [image for image in order if not (q_cams[query] == 3 and g_cams[image] == 2)]
            hits = np.flatnonzero(g_ids[order] == q_ids[query])
            if not len(hits):
                continue
            ranking = list(dict.fromkeys(g_ids[order]))  # identities by their nearest image
            first = ranking.index(q_ids[query])
            precision = np.mean([(count + 1) / (rank + 1) for count, rank in enumerate(hits)])
            found.append([precision, first < 1, first < 5, first < 10, len(hits) / (hits[-1] + 1)])
        means.append(np.mean(np.array(found, dtype=float), axis=0))
    return np.mean(means, axis=0)


def test_both_searches_are_those_calculated_by_hand():
    """Identities 0 to 11, of which some were never seen by some camera."""
    random = np.random.default_rng(3)
    from ccfast.data import Part, ReIDData

    def part(cameras, size):
        ids, cams = random.integers(12, size=size), random.choice(cameras, size=size)
        return Part(range(size), torch.from_numpy(ids), torch.from_numpy(cams))

    query, gallery = part([3, 6], 40), part([1, 2, 4, 5], 80)
    protocols = sysumm01_protocols(query, gallery)
    data = ReIDData("sysumm01", gallery, query, gallery, 3, make_views=lambda encoder: None, protocols=protocols)
    features = [F.normalize(torch.from_numpy(random.standard_normal((n, 6))).float(), dim=1) for n in (40, 80)]
    metrics = evaluate(data, *features)
    distances = (2 - 2 * features[0] @ features[1].T).numpy()
    for name, prefix in (("all_search", ""), ("indoor_search", "indoor_search/")):
        expected = single_shot_by_hand(data, distances, protocols[name])
        assert [metrics[prefix + key] for key in METRICS] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("missing", IDS)
def test_a_missing_list_of_identities_is_named(tmp_path, missing):
    write_sysumm01(tmp_path, {name: lines for name, lines in IDS.items() if name != missing})
    with pytest.raises(InputError, match=f"{missing} is missing; expected cam1/ to cam6/"):
        load_data("sysumm01", tmp_path)


def test_a_list_of_something_else_is_refused(tmp_path):
    write_sysumm01(tmp_path, {**IDS, "exp/val_id.txt": ["nine"]})
    with pytest.raises(InputError, match=r"val_id.txt: expected identities such as 1,2,4, got 'nine"):
        load_data("sysumm01", tmp_path)


def test_identities_without_images_are_refused(tmp_path):
    write_sysumm01(tmp_path, {**IDS, "exp/test_id.txt": ["400,401"]})
    with pytest.raises(InputError, match=r"no images of 2 identities in cam3/, cam6/"):
        load_data("sysumm01", tmp_path)


def test_another_layout_is_refused(tmp_path):
    write_tree(tmp_path, {"visible": SHOTS})
    with pytest.raises(InputError, match=r"holds visible/; expected cam1/ to cam6/ .* exp/test_id.txt"):
        load_data("sysumm01", tmp_path)
