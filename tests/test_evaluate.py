"""Ranking metrics by a data set's protocols, against a calculation by hand; agreement of clusters with identities."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from ccfast._errors import InputError
from ccfast.data import Comparison, Part, Protocol, ReIDData
from ccfast.training import evaluate as module
from ccfast.training import messages
from ccfast.training.evaluate import Reranking, agreement, evaluate, obstacles

METRICS = ["mAP", "rank1", "rank5", "rank10", "mINP"]


def part(ids, cams=None, clothes=None):
    columns = [None if column is None else torch.as_tensor(column) for column in (ids, cams, clothes)]
    return Part(range(len(ids)), *columns)


def data_set(query, gallery, protocols=None):
    return ReIDData("test", gallery, query, gallery, 3, make_views=lambda encoder: None, protocols=protocols or {})


def random_data(protocols=None, queries=30, images=120, identities=6, cameras=3, seed=0):
    """Query and gallery of random identities, cameras and features."""
    random = np.random.default_rng(seed)
    parts = [
        part(random.integers(identities, size=size), random.integers(cameras, size=size)) for size in (queries, images)
    ]
    features = [F.normalize(torch.from_numpy(random.standard_normal((n, 8))).float(), dim=1) for n in (queries, images)]
    return data_set(*parts, protocols), features


def by_hand(distances, allowed, matching, identities=None):
    """The metrics of one query: ``allowed`` gallery rows, ``matching`` ones; ``identities`` for a CMC over these."""
    order = [row for row in np.argsort(distances, kind="stable") if allowed[row]]
    hits = [rank for rank, row in enumerate(order) if matching[row]]
    if not hits:
        return None
    precision = np.mean([(found + 1) / (rank + 1) for found, rank in enumerate(hits)])
    first = hits[0]
    if identities is not None:
        seen = list(dict.fromkeys(identities[row] for row in order))
        first = seen.index(identities[order[first]])
    return [precision, first < 1, first < 5, first < 10, len(hits) / (hits[-1] + 1)]


def mean_by_hand(data, features, rows, columns, *, distinct=False, allowed_of=lambda query: True):
    """Mean over the queries ``rows`` that have a match among ``columns``."""
    distances = (2 - 2 * features[0] @ features[1].T).numpy()
    q_ids, g_ids = data.query.ids.numpy(), data.gallery.ids.numpy()
    q_cams, g_cams = data.query.cams.numpy(), data.gallery.cams.numpy()
    found = []
    for row in rows:
        junk = (g_ids == q_ids[row]) & (g_cams == q_cams[row])
        allowed = ~junk & np.isin(np.arange(len(g_ids)), columns) & allowed_of(row)
        one = by_hand(distances[row], allowed, g_ids == q_ids[row], g_ids if distinct else None)
        if one is not None:
            found.append(one)
    return np.array(found, dtype=float)


def values(metrics, prefix=""):
    return [metrics[prefix + name] for name in METRICS]


def test_the_default_protocol_is_market1501s():
    data, features = random_data()
    assert list(data.protocols) == ["market1501"]
    metrics = evaluate(data, *features)
    assert list(metrics) == METRICS
    expected = mean_by_hand(data, features, range(30), range(120)).mean(0)
    assert values(metrics) == pytest.approx(expected, abs=1e-6)


def test_evaluation_counts_other_cameras_only():
    features = torch.eye(3)[[0]], torch.tensor([[1.0, 0, 0], [0.8, 0.6, 0], [0.6, 0.8, 0]])
    assert evaluate(data_set(part([1], [1]), part([1, 2, 1], [1, 1, 2])), *features)["mAP"] == 0.5
    assert evaluate(data_set(part([1]), part([1, 2, 1])), *features)["mAP"] == pytest.approx(5 / 6)


def test_every_query_of_a_trial_has_the_same_weight_in_any_comparison():
    first, second = Comparison(torch.arange(25), torch.arange(40)), Comparison(torch.arange(25, 30), torch.arange(120))
    data, features = random_data({"split": Protocol(((first, second),))})
    expected = np.concatenate(
        [mean_by_hand(data, features, range(25), range(40)), mean_by_hand(data, features, range(25, 30), range(120))]
    )
    assert values(evaluate(data, *features)) == pytest.approx(expected.mean(0), abs=1e-6)


def test_queries_without_a_match_do_not_weigh_in():
    """25 queries of which few find their identity among 4 images, and 5 queries that all do."""
    first, second = Comparison(torch.arange(25), torch.arange(4)), Comparison(torch.arange(25, 30), torch.arange(120))
    data, features = random_data({"split": Protocol(((first, second),))})
    few = mean_by_hand(data, features, range(25), range(4))
    assert 0 < len(few) < 25
    expected = np.concatenate([few, mean_by_hand(data, features, range(25, 30), range(120))])
    assert values(evaluate(data, *features)) == pytest.approx(expected.mean(0), abs=1e-6)


def test_a_comparison_without_any_match_is_left_out():
    nothing = Comparison(torch.tensor([0]), torch.tensor([1]))
    rest = Comparison(torch.tensor([1]), torch.tensor([0, 1]))
    data = data_set(part([1, 2], [0, 0]), part([1, 2], [1, 1]), {"two": Protocol(((nothing, rest),))})
    assert evaluate(data, torch.eye(2), torch.eye(2))["mAP"] == 1


def test_metrics_are_means_over_the_trials():
    trials = [(Comparison(torch.arange(30), torch.arange(start, start + 60)),) for start in (0, 20, 60)]
    data, features = random_data({"three": Protocol(tuple(trials))})
    means = [mean_by_hand(data, features, range(30), range(start, start + 60)).mean(0) for start in (0, 20, 60)]
    assert values(evaluate(data, *features)) == pytest.approx(np.mean(means, 0), abs=1e-6)


def test_rows_of_a_comparison_may_stand_in_any_order():
    orders = torch.randperm(30), torch.randperm(120)
    data, features = random_data({"shuffled": Protocol(((Comparison(*orders),),))})
    plain, _ = random_data()
    assert values(evaluate(data, *features)) == pytest.approx(values(evaluate(plain, *features)), abs=1e-9)


def test_ranks_may_count_identities_instead_of_images():
    everything = ((Comparison(torch.arange(30), torch.arange(120)),),)
    data, features = random_data({"distinct": Protocol(everything, distinct_identities=True)}, identities=15)
    metrics = evaluate(data, *features)
    expected = mean_by_hand(data, features, range(30), range(120), distinct=True).mean(0)
    assert values(metrics) == pytest.approx(expected, abs=1e-6)
    plain, _ = random_data(identities=15)
    assert metrics["rank5"] > evaluate(plain, *features)["rank5"]
    assert metrics["mAP"] == evaluate(plain, *features)["mAP"]


def test_further_protocols_carry_their_name():
    whole = Protocol(((Comparison(torch.arange(30), torch.arange(120)),),))
    half = Protocol(((Comparison(torch.arange(30), torch.arange(60)),),))
    data, features = random_data({"all": whole, "half": half})
    metrics = evaluate(data, *features)
    assert list(metrics) == METRICS + [f"half/{name}" for name in METRICS]
    expected = mean_by_hand(data, features, range(30), range(60)).mean(0)
    assert values(metrics, "half/") == pytest.approx(expected, abs=1e-6)


def test_the_log_names_further_protocols():
    metrics = dict.fromkeys([*METRICS, *(f"half/{name}" for name in METRICS)], 0.25) | {"half/rank5": 0.5}
    assert messages.ranking(metrics) == (
        "mAP 25.0  rank-1 25.0  rank-5 25.0  rank-10 25.0; half: mAP 25.0  rank-1 25.0  rank-5 50.0  rank-10 25.0"
    )


def test_re_ranking_looks_at_the_images_of_a_trial_alone():
    rows, columns = torch.arange(10, 30), torch.arange(40, 120)
    data, (query, gallery) = random_data({"part": Protocol(((Comparison(rows, columns),),))})
    alone = data_set(
        part(data.query.ids[rows], data.query.cams[rows]), part(data.gallery.ids[columns], data.gallery.cams[columns])
    )
    assert evaluate(data, query, gallery, rerank=True) == evaluate(alone, query[rows], gallery[columns], rerank=True)


def test_ignoring_cameras_is_having_none():
    data, features = random_data()
    without = data_set(part(data.query.ids), part(data.gallery.ids))
    assert evaluate(data.ignoring_cameras(), *features) == evaluate(without, *features) != evaluate(data, *features)
    assert data.ignoring_cameras().train.cams is data.train.cams is not None


PROTOCOLS = {
    "market1501": None,
    "ranks of identities": Protocol(((Comparison(torch.arange(300), torch.arange(500)),),), distinct_identities=True),
    "comparisons": Protocol(
        (
            (
                Comparison(torch.arange(0, 300, 2), torch.arange(0, 500, 3)),
                Comparison(torch.arange(299, 0, -2), torch.arange(499, 100, -1)),
            ),
            (Comparison(torch.randperm(300, generator=torch.Generator().manual_seed(0)), torch.arange(90, 400)),),
        )
    ),
}


@pytest.mark.parametrize("rerank", [False, True])
@pytest.mark.parametrize("name", PROTOCOLS)
def test_blocks_of_queries_change_no_bit(monkeypatch, name, rerank):
    protocols = None if PROTOCOLS[name] is None else {name: PROTOCOLS[name]}
    data, features = random_data(protocols, queries=300, images=500, identities=40)
    whole = evaluate(data, *features, rerank=rerank)
    monkeypatch.setattr(module, "DISTANCES", 500 * 64)
    assert len(list(module._blocks(*features, None))) == 5
    assert evaluate(data, *features, rerank=rerank) == whole


@pytest.mark.parametrize("name", PROTOCOLS)
def test_no_tensor_holds_the_distances_of_all_queries(monkeypatch, name):
    class Largest(TorchDispatchMode):
        entries = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            for value in result if isinstance(result, tuple | list) else (result,):
                if isinstance(value, torch.Tensor):
                    self.entries = max(self.entries, value.numel())
            return result

    protocols = None if PROTOCOLS[name] is None else {name: PROTOCOLS[name]}
    data, features = random_data(protocols, queries=300, images=500, identities=40)
    monkeypatch.setattr(module, "DISTANCES", 500 * 64)
    with Largest() as largest:
        evaluate(data, *features)
    assert 0 < largest.entries <= 500 * 64
    with Largest() as largest:
        evaluate(data, *features, rerank=True)
    assert largest.entries < 300 * 500 // 2  # most are of V of all rows, which is sparse


#: Evaluates with re-ranking if one matrix of all queries does not fit into memory.
LITTLE_ROOM = """
import resource
from pathlib import Path

import ccfast
from test_evaluate import random_data
from ccfast.training import evaluate as module

module.DISTANCES = 10**6
data, features = random_data()
module.evaluate(data, *features, rerank=True)  # what is loaded once does not count
data, features = random_data(queries=7000, images=7000, identities=350)
lines = Path("/proc/self/status").read_text().splitlines()
held = next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (held + 4 * 7000 * 7000, -1))
module.evaluate(data, *features, rerank=True)
print("evaluated", flush=True)
try:
    ccfast.k_reciprocal_rerank(*features)
except RuntimeError as error:
    print("no room for the whole:", "can't allocate memory" in str(error))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux limits what a process allocates")
def test_re_ranking_takes_less_memory_than_one_matrix_of_all_queries():
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
        "OMP_NUM_THREADS": "1",
    }
    result = subprocess.run(
        [sys.executable, "-c", LITTLE_ROOM], env=environment, capture_output=True, text=True, check=False
    )
    assert result.stdout.splitlines() == ["evaluated", "no room for the whole: True"], result.stderr


def test_a_gallery_wider_than_a_block_is_searched_query_by_query(monkeypatch):
    data, features = random_data()
    whole = evaluate(data, *features)
    monkeypatch.setattr(module, "DISTANCES", 7)
    assert values(evaluate(data, *features)) == pytest.approx(values(whole), abs=1e-6)


def test_options_of_re_ranking_reach_it():
    data, features = random_data()
    plain = evaluate(data, *features)
    assert values(evaluate(data, *features, rerank=Reranking(7, 3, 1.0))) == pytest.approx(values(plain), abs=1e-6)
    assert evaluate(data, *features, rerank=Reranking(20, 6, 0.3)) == evaluate(data, *features, rerank=True)
    assert evaluate(data, *features, rerank=Reranking(7, 1, 0.0)) != evaluate(data, *features, rerank=True)


@pytest.mark.parametrize("queries", [1, 5, 19])
def test_few_rows_are_re_ranked_among_all_there_are(queries, caplog):
    data = data_set(part([1] * queries, [0] * queries), part([1, 2], [1, 1]))
    features = F.normalize(torch.randn(queries + 2, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    with caplog.at_level(logging.WARNING, logger="ccfast"):
        evaluate(data, features[:queries], features[queries:], rerank=True)
    warned = f"k1 = {queries + 1} instead of 20: query and gallery have {queries + 2} images" in caplog.text
    assert warned == (queries < 19)


def test_a_further_protocol_that_nothing_matches_is_left_out_and_the_main_one_refused():
    everything = Protocol(((Comparison(torch.tensor([0]), torch.tensor([0, 1])),),))
    nothing = Protocol(((Comparison(torch.tensor([0]), torch.tensor([1])),),))
    query, gallery, features = part([1], [0]), part([1, 2], [1, 1]), (torch.eye(2)[:1], torch.eye(2))
    data = data_set(query, gallery, {"all": everything, "none": nothing})
    assert list(obstacles(data)) == ["none"]
    assert list(evaluate(data, *features)) == METRICS
    data = data_set(query, gallery, {"none": nothing, "all": everything})
    with pytest.raises(InputError, match="no query has a match in the gallery"):
        evaluate(data, *features)


def test_queries_without_any_match_are_explained():
    data = data_set(part([1], [1]), part([1], [1]))
    with pytest.raises(InputError, match=r"query and gallery cannot be evaluated: .*--ignore-cameras .* as cameras"):
        evaluate(data, torch.eye(2)[:1], torch.eye(2)[1:])
    assert evaluate(data.ignoring_cameras(), torch.eye(2)[:1], torch.eye(2)[1:])["mAP"] == 1
    data = data_set(part([1], [1]), part([2], [1]))
    with pytest.raises(InputError, match=r"no query has a match in the gallery: no identity of the query is in the"):
        evaluate(data, torch.eye(2)[:1], torch.eye(2)[1:])


def test_features_that_are_not_numbers_are_explained():
    data, (query, gallery) = random_data()
    with pytest.raises(InputError, match="query and gallery cannot be evaluated"):
        evaluate(data, query * float("nan"), gallery)


def test_agreement_leaves_noise_out():
    labels, ids = torch.tensor([0, 0, 1, 1, -1, -1]), torch.tensor([5, 5, 6, 6, 5, 6])
    assert agreement(labels, ids) == {"nmi": 1.0, "ari": 1.0, "purity": 1.0}
    assert agreement(torch.tensor([0, 1, 0, 1, -1, -1]), ids)["ari"] < 0.1
    assert agreement(torch.full((6,), -1), ids) == {}


def test_purity_is_the_share_of_a_clusters_most_frequent_identity():
    labels = torch.tensor([0, 0, 0, 1, 1, 2, -1, -1])
    ids = torch.tensor([7, 7, 8, 8, 8, 9, 7, 9])
    assert agreement(labels, ids)["purity"] == pytest.approx(5 / 6)


def test_unknown_or_single_identities_give_no_agreement():
    labels = torch.tensor([0, 0, 1, 1])
    assert agreement(labels, torch.ones(4)) == {}
    assert agreement(labels, None) == {}
