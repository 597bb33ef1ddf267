"""Verification: AUC, rates and thresholds are those of scikit-learn on all pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score, roc_curve

from ccfast.commands.evaluate.measure import evaluate_checkpoint
from ccfast.data import Comparison, Part, Protocol, ReIDData
from ccfast.training import verification
from ccfast.training.verification import verify


def data_of(ids, cams=None, protocols=None):
    query, gallery = (Part([None] * len(part), torch.tensor(part), cams and torch.tensor(cams[number]))
                      for number, part in enumerate(ids))  # fmt: skip
    return ReIDData("test", gallery, query, gallery, 3, make_views=lambda encoder: None, protocols=protocols or {})


def random_case(queries, gallery, identities, *, ties=False, cams=True, seed=0):
    draw = torch.Generator().manual_seed(seed)
    ids = [torch.randint(identities, (count,), generator=draw) for count in (queries, gallery)]
    centres = torch.randn(identities, 6, generator=draw)
    features = [F.normalize(centres[of] + 1.2 * torch.randn(len(of), 6, generator=draw), dim=1) for of in ids]
    steps = 2 if ties else 2**8  # sums of products of such numbers are exact in any order
    features = [(rows * steps).round() / steps for rows in features]
    cameras = [torch.randint(3, (count,), generator=draw).tolist() for count in (queries, gallery)]
    return data_of([of.tolist() for of in ids], cameras if cams else None), *features


def pairs(data, query, gallery):
    """Whether each pair has one identity, and its similarity; without ignored pairs."""
    same = data.query.ids[:, None] == data.gallery.ids
    kept = torch.ones_like(same)
    if data.query.cams is not None:
        kept = ~(same & (data.query.cams[:, None] == data.gallery.cams))
    return same[kept].numpy(), (query @ gallery.T)[kept].numpy()


@pytest.mark.parametrize("cams", [True, False])
@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("block", [2**24, 700])
@pytest.mark.parametrize(("queries", "gallery"), [(60, 400), (3, 40), (200, 301)])
def test_as_scikit_learn_has_it(monkeypatch, queries, gallery, block, ties, cams):
    monkeypatch.setattr(verification, "SIMILARITIES", block)
    data, *features = random_case(queries, gallery, 9, ties=ties, cams=cams, seed=queries)
    same, scores = pairs(data, *features)
    found = verify(data, *features)
    assert (found.same, found.different) == (same.sum(), (~same).sum())
    assert found.auc == pytest.approx(roc_auc_score(same, scores), abs=1e-12)
    fpr, tpr, thresholds = roc_curve(same, scores, drop_intermediate=False)
    for measured, rate in zip(found.thresholds, verification.RATES, strict=True):
        place = np.flatnonzero(fpr <= rate)[-1]
        assert measured.fpr == rate and measured.tpr == tpr[place]
        assert (scores[~same] >= measured.threshold).mean() <= rate
        assert (scores[same] >= measured.threshold).mean() == measured.tpr
        if place:
            assert measured.threshold == thresholds[place]


def test_a_perfect_encoder_and_one_that_sees_nothing():
    features = torch.eye(4)
    perfect = verify(data_of([[0, 1], [0, 1, 2, 3]]), features[:2], features)
    assert perfect.auc == 1 and [rate.tpr for rate in perfect.thresholds] == [1, 1, 1]
    assert all(rate.threshold == 1 for rate in perfect.thresholds)
    blind = verify(data_of([[0, 1], [0, 1, 2, 3]]), features[[0, 0]], features[[0, 0, 0, 0]])
    assert blind.auc == 0.5 and [rate.tpr for rate in blind.thresholds] == [0, 0, 0]
    assert all(rate.threshold > 1 for rate in blind.thresholds)  # no pair counts as the same


@pytest.mark.parametrize("ids", [[[0, 0], [0, 0]], [[0, 1], [2, 3]]])
def test_without_same_and_different_pairs_there_is_no_verification(ids):
    assert verify(data_of(ids), torch.eye(2), torch.eye(2)) is None


def test_pairs_are_those_that_the_protocol_compares():
    comparison = Comparison(torch.tensor([1]), torch.tensor([0, 2]))
    data = data_of([[5, 0], [0, 0, 1]], protocols={"main": Protocol(((comparison,),))})
    found = verify(data, torch.eye(3)[:2], torch.eye(3))
    assert (found.same, found.different, found.auc) == (1, 1, 0.5)


def test_the_most_that_is_held_is_a_hundredth(monkeypatch):
    monkeypatch.setattr(verification, "SIMILARITIES", 4000)
    held = []
    add = verification._Others.add

    def watched(self, block):
        add(self, block)
        held.append(len(self.kept))

    monkeypatch.setattr(verification._Others, "add", watched)
    data, *features = random_case(300, 1000, 40)
    verify(data, *features)
    assert len(held) > 50 and max(held) <= 2 * (300 * 1000 // 100 + 1)


@pytest.mark.slow
def test_evaluate_prints_rates_and_thresholds(tmp_path, capsys):
    from ccfast.cli import main
    from ccfast.training.trained import load_trained

    folder = str(tmp_path / "run")
    assert main(["train", "--run", folder, "--epochs", "1", "--iters", "2", "--device", "cpu", "--quiet"]) == 0
    assert main(["evaluate", folder, "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    trained = load_trained(folder, device="cpu")
    same, scores = pairs(trained.data, trained.extract(trained.data.query), trained.extract(trained.data.gallery))
    assert f"({same.sum():,} same pairs, {(~same).sum():,} different ones): ROC AUC" in out
    assert f"ROC AUC {roc_auc_score(same, scores):.4f}" in out
    for rate in ("0.01", "0.001", "0.0001"):
        assert f"at FPR {rate}: similarity of at least 0." in out
    assert set(evaluate_checkpoint(folder, device="cpu")) == {"mAP", "rank1", "rank5", "rank10", "mINP"}
