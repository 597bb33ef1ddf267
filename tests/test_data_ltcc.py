"""LTCC: its file names, and the general and the clothes-changing setting against a calculation by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ccfast._errors import InputError
from ccfast.data import Part, ReIDData, load_data
from ccfast.data.sets.ltcc import ltcc_protocols
from ccfast.training.evaluate import evaluate

pytest.importorskip("PIL.Image")

from image_trees import write_image, write_tree

METRICS = ["mAP", "rank1", "rank5", "rank10", "mINP"]
TREE = {
    "train": ["000_1_c11_015833.png", "000_2_c4_016960.png", "002_1_c5_016017.png"],
    "query": ["094_1_c9_015833.png", "094_2_c12_016960.png"],
    "test": ["094_1_c5_016017.png", "094_3_c9_016018.png", "103_1_c9_020000.png"],
}


def test_identity_clothes_and_camera_come_from_the_name(tmp_path):
    data = load_data("ltcc", write_tree(tmp_path / "LTCC_ReID", TREE).parent)
    assert data.train.ids.tolist() == [0, 0, 2]
    assert data.train.clothes.tolist() == [1, 2, 1]
    assert data.train.cams.tolist() == [11, 4, 5]
    assert (data.query.clothes.tolist(), data.gallery.clothes.tolist()) == ([1, 2], [1, 3, 1])
    assert list(data.protocols) == ["general", "clothes_changing"]


def test_without_query_and_gallery_there_is_no_evaluation(tmp_path):
    data = load_data("ltcc", write_tree(tmp_path, {"train": TREE["train"]}))
    assert data.query is None
    assert data.protocols == {}


def test_names_of_another_data_set_are_refused(tmp_path):
    write_image(write_tree(tmp_path, TREE) / "query" / "0002_c1s1_000451_03.jpg")
    with pytest.raises(InputError, match=r"a name like 0002_c1s1_000451_03.jpg; expected train/, query/ and test/"):
        load_data("ltcc", tmp_path)


def setting_by_hand(query, gallery, distances, *, clothes_changing):
    """Mean over the queries that have a match: same identity, another camera, and (where asked) other clothes."""
    (q_ids, q_cams, q_clothes), (g_ids, g_cams, g_clothes) = (
        (part.ids.numpy(), part.cams.numpy(), part.clothes.numpy()) for part in (query, gallery)
    )
    found = []
    for i, row in enumerate(distances):
        junk = (g_ids == q_ids[i]) & (g_cams == q_cams[i])
        if clothes_changing:
            junk |= (g_ids == q_ids[i]) & (g_clothes == q_clothes[i])
        order = [image for image in np.argsort(row, kind="stable") if not junk[image]]
        hits = np.flatnonzero(g_ids[order] == q_ids[i])
        if len(hits):
            precision = np.mean([(count + 1) / (rank + 1) for count, rank in enumerate(hits)])
            found.append([precision, hits[0] < 1, hits[0] < 5, hits[0] < 10, len(hits) / (hits[-1] + 1)])
    return np.mean(np.array(found, dtype=float), axis=0), len(found)


def test_both_settings_are_those_calculated_by_hand():
    """Identities 0 and 1 never change clothes, so they have no match in the clothes-changing setting."""
    random = np.random.default_rng(5)

    def part(size):
        ids, cams = random.integers(8, size=size), random.integers(4, size=size)
        clothes = np.where(ids < 2, 1, random.integers(1, 4, size=size))
        return Part(range(size), *(torch.from_numpy(column) for column in (ids, cams, clothes)))

    query, gallery = part(40), part(90)
    protocols = ltcc_protocols(query, gallery)
    data = ReIDData("ltcc", gallery, query, gallery, 3, make_views=lambda encoder: None, protocols=protocols)
    features = [F.normalize(torch.from_numpy(random.standard_normal((n, 6))).float(), dim=1) for n in (40, 90)]
    metrics = evaluate(data, *features)
    distances = (2 - 2 * features[0] @ features[1].T).numpy()
    general, of_general = setting_by_hand(query, gallery, distances, clothes_changing=False)
    changing, of_changing = setting_by_hand(query, gallery, distances, clothes_changing=True)
    assert of_changing < of_general
    assert [metrics[key] for key in METRICS] == pytest.approx(general, abs=1e-6)
    assert [metrics[f"clothes_changing/{key}"] for key in METRICS] == pytest.approx(changing, abs=1e-6)
