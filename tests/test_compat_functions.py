"""ccfast.compat compared with the outputs of the authors' helper functions, and on inputs that those do not cover."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import Backend
from sample_inputs import clustered, memory_batch
from sklearn.metrics import average_precision_score
from torch import Tensor

import ccfast
from ccfast import compat


def ranking_arguments(want: dict[str, np.ndarray]) -> list[np.ndarray]:
    return [want[name] for name in ("distmat", "query_ids", "gallery_ids", "query_cams", "gallery_cams")]


# --- re-ranking ---


@pytest.mark.parametrize("case", [0, 1])
def test_re_ranking_is_the_authors(golden: Any, case: int) -> None:
    want = golden("dropin/re_ranking")
    k1, k2, lambda_value = want[f"arguments_{case}"]
    found = compat.re_ranking(
        want["q_g_dist"], want["q_q_dist"], want["g_g_dist"], int(k1), int(k2), float(lambda_value)
    )
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, want[f"reranked_{case}"], rtol=0, atol=5e-6)


def test_both_conventions_of_squared_distances(golden: Any) -> None:
    want = golden("dropin/re_ranking")
    squared = [want[name] ** 2 for name in ("q_g_dist", "q_q_dist", "g_g_dist")]
    np.testing.assert_allclose(compat.re_ranking(*squared), want["reranked_of_squared"], rtol=0, atol=5e-6)
    paper = compat.re_ranking_paper(*squared)
    np.testing.assert_allclose(paper, want["reranked_0"], rtol=0, atol=5e-6)
    features = (torch.from_numpy(want[name]) for name in ("query", "gallery"))
    np.testing.assert_allclose(paper, ccfast.k_reciprocal_rerank(*features).numpy(), rtol=0, atol=5e-6)


def plain_re_ranking(q_g: np.ndarray, q_q: np.ndarray, g_g: np.ndarray, k1: int, k2: int) -> np.ndarray:
    """The definition, row by row, at lambda 0.3; distances need not be symmetric."""
    squares = np.block([[q_q, q_g], [q_g.T, g_g]]) ** 2
    scaled = (squares / squares.max(axis=0)).T
    rank = np.argsort(scaled, axis=1, kind="stable")

    def reciprocal(i: int, width: int) -> set[int]:
        return {j for j in rank[i, :width] if i in rank[j, :width]}

    encoding = np.zeros_like(scaled)
    for i in range(len(scaled)):
        own = reciprocal(i, k1 + 1)
        members = set(own)
        for candidate in own:
            added = reciprocal(candidate, round(k1 / 2) + 1)
            if 3 * len(added & own) > 2 * len(added):
                members |= added
        columns = sorted(members)
        encoding[i, columns] = np.exp(-scaled[i, columns]) / np.exp(-scaled[i, columns]).sum()
    if k2 > 1:
        encoding = np.stack([encoding[row[:k2]].mean(axis=0) for row in rank])
    shared = np.stack([np.minimum(row, encoding).sum(axis=1) for row in encoding])
    queries = len(q_q)
    return (0.7 * (1 - shared / (2 - shared)) + 0.3 * scaled)[:queries, queries:]


@pytest.mark.parametrize(("k1", "k2"), [(5, 3), (20, 6), (3, 9), (8, 1), (1, 1), (20, 21), (30, 40)])
def test_re_ranking_takes_any_k_and_asymmetric_distances(k1: int, k2: int) -> None:
    generator = np.random.default_rng(k1)
    q_g, q_q, g_g = generator.random((6, 15)), generator.random((6, 6)), generator.random((15, 15))
    np.fill_diagonal(q_q, 0)
    np.fill_diagonal(g_g, 0)
    found = compat.re_ranking(q_g, q_q, g_g, k1, k2)
    np.testing.assert_allclose(found, plain_re_ranking(q_g, q_q, g_g, k1, k2), rtol=0, atol=2e-6)


def test_re_ranking_of_points_that_coincide() -> None:
    zeros = np.zeros((3, 5)), np.zeros((3, 3)), np.zeros((5, 5))
    np.testing.assert_allclose(compat.re_ranking(*zeros, k1=7, k2=1), 0, atol=1e-6)


def test_re_ranking_names_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"g_g_dist: expected shape \(5, 5\)"):
        compat.re_ranking(np.ones((3, 5)), np.ones((3, 3)), np.ones((4, 4)))
    with pytest.raises(ValueError, match="got NaN or infinity"):
        compat.re_ranking(np.full((1, 1), np.nan), np.ones((1, 1)), np.ones((1, 1)))


# --- evaluation ---


def test_mean_ap_and_cmc_are_the_authors(golden: Any) -> None:
    want = golden("dropin/ranking")
    arguments = ranking_arguments(want)
    np.testing.assert_allclose(compat.mean_ap(*arguments), want["mean_ap"], rtol=0, atol=1e-9)
    market = compat.cmc(
        *arguments, topk=50, separate_camera_set=False, single_gallery_shot=False, first_match_break=True
    )
    np.testing.assert_allclose(market, want["cmc_market"], rtol=0, atol=1e-9)
    allshots = compat.cmc(*arguments, topk=30, first_match_break=False)
    np.testing.assert_allclose(allshots, want["cmc_allshots"], rtol=0, atol=1e-9)


def test_identities_and_cameras_of_any_type_in_tensors_lists_and_names(golden: Any) -> None:
    want = golden("dropin/ranking")
    distances, *labels = ranking_arguments(want)
    want_value = compat.mean_ap(distances, *labels)
    assert compat.mean_ap(torch.from_numpy(distances), *map(torch.from_numpy, labels)) == want_value
    assert compat.mean_ap(distances.astype(np.float64), *(label.tolist() for label in labels)) == want_value
    assert compat.mean_ap(distances, *(np.char.add("id", label.astype(str)) for label in labels)) == want_value
    assert compat.mean_ap(distances, *(label.astype(np.uint32) for label in labels)) == want_value


def test_without_identities_every_query_is_its_index() -> None:
    distances = np.array([[0.1, 0.2, 0.3], [0.1, 0.2, 0.3]])
    assert compat.mean_ap(distances) == pytest.approx((1 + 1 / 2) / 2)
    np.testing.assert_allclose(compat.cmc(distances, topk=3, first_match_break=True), [0.5, 1, 1])


def plain_cmc(arguments: list[np.ndarray], topk: int, separate: bool, single: bool, first: bool) -> np.ndarray:
    """The definition, query by query, with the same draws."""
    distances, query_ids, gallery_ids, query_cams, gallery_cams = arguments
    counts, queries = np.zeros(topk), 0
    for row, identity, camera in zip(distances, query_ids, query_cams, strict=True):
        order = np.argsort(row, kind="stable")
        kept = (gallery_ids[order] != identity) | (gallery_cams[order] != camera)
        if separate:
            kept = gallery_cams[order] != camera
        ids = gallery_ids[order][kept]
        if identity not in ids:
            continue
        queries += 1
        for _ in range(10 if single else 1):
            chosen = ids
            if single:
                groups: dict[int, list[int]] = {}
                for place, other in enumerate(ids):
                    groups.setdefault(other, []).append(place)
                chosen = ids[sorted(np.random.choice(places) for places in groups.values())]
            matches = np.flatnonzero(chosen == identity)
            for before, rank in enumerate(matches):
                if rank - before >= topk:
                    break
                counts[rank - before] += 1 if first else 1 / (len(matches) * (10 if single else 1))
                if first:
                    break
    return counts.cumsum() / queries


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_every_option_of_cmc(golden: Any, separate: bool, single: bool, first: bool) -> None:
    arguments = ranking_arguments(golden("dropin/ranking"))
    np.random.seed(5)
    want = plain_cmc(arguments, 40, separate, single, first)
    np.random.seed(5)
    options = {"separate_camera_set": separate, "single_gallery_shot": single, "first_match_break": first}
    np.testing.assert_allclose(compat.cmc(*arguments, topk=40, **options), want, rtol=0, atol=1e-12)


def test_regdb_leaves_out_other_identities_of_other_cameras(golden: Any) -> None:
    distances, query_ids, gallery_ids, query_cams, gallery_cams = ranking_arguments(golden("dropin/ranking"))
    precisions = []
    for row, identity, camera in zip(distances, query_ids, query_cams, strict=True):
        kept = (gallery_ids == identity) | (gallery_cams == camera)
        if (gallery_ids[kept] == identity).any():
            precisions.append(average_precision_score(gallery_ids[kept] == identity, -row[kept]))
    found = compat.mean_ap(distances, query_ids, gallery_ids, query_cams, gallery_cams, regdb=True)
    np.testing.assert_allclose(found, np.mean(precisions), rtol=0, atol=1e-12)


def test_3c_names_of_identities(golden: Any) -> None:
    distances, *labels = ranking_arguments(golden("dropin/ranking"))
    named = dict(zip(("query_pids", "test_pids", "query_cams", "test_cams"), labels, strict=True))
    assert compat.mean_ap(distances, **named) == compat.mean_ap(distances, *labels)
    want = compat.cmc(distances, *labels, topk=20, first_match_break=True)
    np.testing.assert_array_equal(compat.cmc(distances, **named), want)


def test_no_valid_query_is_the_authors_error() -> None:
    for function in (compat.mean_ap, compat.cmc):
        with pytest.raises(RuntimeError, match="No valid query"):
            function(np.ones((2, 2)), [0, 1], [2, 3], [0, 0], [1, 1])


def test_ranking_names_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"gallery_ids: expected shape \(3,\)"):
        compat.mean_ap(np.ones((2, 3)), [0, 1], [0, 1], [0, 0], [1, 1, 1])
    with pytest.raises(ValueError, match=r"distmat: .*NaN"):
        compat.cmc(np.array([[np.nan]]))


def evaluation(golden: Any) -> tuple[dict[str, np.ndarray], dict[str, Tensor], list[Any], list[Any]]:
    want = golden("dropin/evaluate_all")
    labels = zip(want["ids"].tolist(), want["cams"].tolist(), strict=True)
    entries = [(f"{i}.jpg", identity, cam) for i, (identity, cam) in enumerate(labels)]
    by_name = {entry[0]: torch.from_numpy(row) for entry, row in zip(entries, want["features"], strict=True)}
    queries = int(want["num_query"])
    return want, by_name, entries[:queries], entries[queries:]


def test_pairwise_distance_is_the_authors(golden: Any) -> None:
    want, by_name, query, gallery = evaluation(golden)
    found, x, y = compat.pairwise_distance(by_name, query, gallery)
    np.testing.assert_allclose(found.numpy(), want["distmat"], rtol=0, atol=2e-5)
    np.testing.assert_array_equal(np.concatenate([x, y]), want["features"])
    everything = compat.pairwise_distance(by_name)
    points = torch.from_numpy(want["features"]).double()
    want_all = 2 * (points**2).sum(1, keepdim=True) - 2 * points @ points.T
    np.testing.assert_allclose(everything.numpy(), want_all.numpy(), rtol=0, atol=2e-5)


def test_evaluate_all_prints_and_returns_the_authors(golden: Any, capsys: pytest.CaptureFixture[str]) -> None:
    want, by_name, query, gallery = evaluation(golden)
    distances, x, y = compat.pairwise_distance(by_name, query, gallery)
    curve, mean = compat.evaluate_all(x, y, distances, query=query, gallery=gallery, cmc_flag=True)
    assert capsys.readouterr().out == str(want["printed"])
    np.testing.assert_allclose(curve, want["returned_0"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(mean, want["returned_1"], rtol=0, atol=1e-9)
    assert compat.evaluate_all(x, y, distances, query, gallery) == mean
    assert capsys.readouterr().out == str(want["printed"]).splitlines(keepends=True)[0]


def test_evaluate_all_takes_ids_and_tmgf_arguments(golden: Any, capsys: pytest.CaptureFixture[str]) -> None:
    want, _, query, gallery = evaluation(golden)
    (_, *query_labels), (_, *gallery_labels) = zip(*query, strict=True), zip(*gallery, strict=True)
    ids = {"query_ids": query_labels[0], "gallery_ids": gallery_labels[0]}
    cams = {"query_cams": query_labels[1], "gallery_cams": gallery_labels[1]}
    mean = compat.evaluate_all(None, None, want["distmat"], **ids, **cams)
    assert mean == pytest.approx(float(want["returned_1"]), abs=1e-9)
    assert compat.evaluate_all(want["distmat"], query=query, gallery=gallery) == mean
    assert compat.evaluate_all(want["distmat"], query, gallery, cmc_flag=True)[1] == mean
    capsys.readouterr()
    with pytest.raises(ValueError, match="query_cams: expected identities and cameras"):
        compat.evaluate_all(None, None, want["distmat"], **ids, gallery_cams=cams["gallery_cams"])


# --- samplers ---


@pytest.mark.parametrize("name", ["RandomMultipleGallerySampler", "RandomMultipleGallerySamplerNoCam"])
@pytest.mark.parametrize("instances", [4, 16])
def test_samplers_draw_what_the_authors_draw(golden: Any, name: str, instances: int) -> None:
    want = golden("dropin/samplers")
    source = [("", int(identity), int(cam)) for identity, cam in zip(want["ids"], want["cams"], strict=True)]
    sampler = getattr(compat, name)(source, num_instances=instances)
    random.seed(int(want["seed"]))
    np.random.seed(int(want["seed"]))
    torch.manual_seed(int(want["seed"]))
    assert list(sampler) == want[f"{name}_{instances}"].tolist()
    assert len(sampler) == want[f"{name}_{instances}_len"]


def test_others_come_from_other_cameras_where_there_are_any() -> None:
    source = [("", 0, 0), ("", 0, 0), ("", 0, 1), ("", 1, 0), ("", 1, 0), ("", -1, 0), ("", 2, 0)]
    for _ in range(20):
        drawn = list(compat.RandomMultipleGallerySampler(source, num_instances=3))
        groups: dict[int, list[int]] = {}
        for index in drawn:
            groups.setdefault(source[index][1], []).append(index)
        anchor, *others = groups[0]
        assert all(source[other][2] != source[anchor][2] for other in others) and len(others) == 2
        assert set(groups[1]) == {3, 4} and len(groups[1]) == 3  # one camera: any other image
        assert groups[2] == [6]


def test_a_sampler_names_an_entry_that_is_no_triple() -> None:
    with pytest.raises(ValueError, match=r"data_source: expected triples .* at 0"):
        compat.RandomMultipleGallerySamplerNoCam([("a", 1)])


# --- searches ---


def test_ranked_list_is_the_authors(backend: Backend, golden: Any) -> None:
    want = golden("dropin/ranked_list")
    found = compat.compute_ranked_list(backend(torch.from_numpy(want["features"])), int(want["k"]), verbose=False)
    np.testing.assert_array_equal(found, want["ranked_list"])
    assert found.dtype == np.int64


def test_ranked_list_prints_when_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    compat.compute_ranked_list(torch.eye(4), 2)
    first, second = capsys.readouterr().out.splitlines()
    assert first == "Computing ranked list..." and second.startswith("Ranked list computing time cost: ")


def test_a_ranked_list_longer_than_there_are_rows() -> None:
    points = torch.tensor([[0.0], [1.0], [3.0]])
    filled = compat.compute_ranked_list(points, 4, search_option=0, verbose=False)
    np.testing.assert_array_equal(filled, [[1, 2, -1, -1], [0, 2, -1, -1], [1, 0, -1, -1]])
    np.testing.assert_array_equal(compat.compute_ranked_list(points, 4, 3, verbose=False), filled[:, :2])


def test_a_row_with_many_duplicates_is_not_in_its_own_list() -> None:
    found = compat.compute_ranked_list(torch.ones(6, 3), 3, verbose=False)
    assert all(i not in row for i, row in enumerate(found))


def test_raw_array_search_is_knn(backend: Backend) -> None:
    points, queries = backend(clustered(50)[0], clustered(20, seed=3)[0])
    distances, indices = compat.search_raw_array_pytorch(None, points, queries, 7)
    want_indices, want_distances = ccfast.knn(points, 7, queries=queries)
    torch.testing.assert_close(indices, want_indices, rtol=0, atol=0)
    torch.testing.assert_close(distances, want_distances, rtol=0, atol=0)
    out, into = torch.empty(20, 7, device=points.device), torch.empty(20, 7, dtype=torch.int64, device=points.device)
    assert compat.search_raw_array_pytorch(None, points, queries, 7, out, into) == (out, into)
    torch.testing.assert_close(into, want_indices, rtol=0, atol=0)


def test_raw_array_search_by_inner_product(backend: Backend) -> None:
    generator = torch.Generator().manual_seed(0)
    points, queries = torch.randn(40, 8, generator=generator), torch.randn(9, 8, generator=generator)
    products, indices = compat.search_raw_array_pytorch(None, *backend(points, queries), 5, metric=0)
    want = (queries.double() @ points.double().T).topk(5)
    torch.testing.assert_close(indices.cpu(), want.indices, rtol=0, atol=0)
    torch.testing.assert_close(products.cpu(), want.values.float(), rtol=1e-6, atol=1e-6)


def test_raw_array_search_fills_what_it_cannot_find() -> None:
    points = torch.tensor([[0.0], [float("nan")], [2.0]])
    distances, indices = compat.search_raw_array_pytorch(None, points, torch.tensor([[1.5], [float("inf")]]), 3)
    farthest = torch.finfo(torch.float32).max
    assert indices.tolist() == [[2, 0, -1], [-1, -1, -1]]
    assert distances.tolist() == [[0.25, 2.25, farthest], [farthest] * 3]


def test_raw_array_search_names_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"metric: .*got 4"):
        compat.search_raw_array_pytorch(None, torch.eye(3), torch.eye(3), 1, metric=4)
    with pytest.raises(TypeError, match="I: expected dtype"):
        compat.search_raw_array_pytorch(None, torch.eye(3), torch.eye(3), 1, I=torch.empty(3, 1))


# --- InfoMap ---


def same_partition(first: np.ndarray, second: np.ndarray) -> bool:
    pairs = set(zip(first.tolist(), second.tolist(), strict=True))
    return len(pairs) == len(set(first.tolist())) == len(set(second.tolist())) and ((first < 0) == (second < 0)).all()


def test_neighbours_and_similarities_are_the_authors(golden: Any) -> None:
    want = golden("dropin/infomap")
    dists, nbrs = compat.get_dist_nbr(want["features"], int(want["k"]), knn_method="faiss-gpu")
    assert (dists.dtype, nbrs.dtype) == (np.float64, np.int32)
    np.testing.assert_allclose(dists, want["dists"], rtol=0, atol=1e-6)
    for row, (found, wanted) in enumerate(zip(nbrs, want["nbrs"], strict=True)):
        close = np.abs(want["dists"][row] - dists[row]) < 1e-6  # equal similarities may be in any order
        assert close.all() and len(set(found) ^ set(wanted)) <= 2


def test_neighbours_of_rows_of_any_norm_are_by_inner_product() -> None:
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(60, 10, generator=generator)
    dists, nbrs = compat.get_dist_nbr(features.numpy(), 70)
    want = (features.double() @ features.double().T).sort(descending=True)
    np.testing.assert_array_equal(nbrs[:, :60], want.indices.numpy())
    np.testing.assert_allclose(dists[:, :60], 1 - want.values.numpy(), rtol=1e-6, atol=1e-6)
    assert (nbrs[:, 60:] == -1).all() and (dists[:, 60:] > 1e38).all()


@pytest.mark.parametrize("threshold", ["0.4", "0.5", "0.6"])
def test_infomap_partitions_are_the_authors(golden: Any, threshold: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("infomap")
    want = golden("dropin/infomap")
    found = compat.cluster_by_infomap(want["nbrs"], want["dists"], float(threshold), int(want["cluster_num"]))
    wanted = want[f"labels_{threshold}"]
    assert same_partition(found, wanted)
    alone, total, clusters = capsys.readouterr().out.splitlines()[-3:]
    assert alone.startswith("孤立点数：") and total == f"总节点数：{len(wanted)}"
    assert clusters.endswith(f"/{wanted.max() + 1}")
    features = torch.from_numpy(want["features"])
    assert same_partition(ccfast.infomap(features, int(want["k"]), float(threshold)).numpy(), wanted)


def test_infomap_of_a_small_graph() -> None:
    pytest.importorskip("infomap")
    # 0, 1, 2 link to each other and 3, 4 too; 5 links to nothing, though 4 links to it.
    nbrs = np.array([[0, 1, 2], [1, 0, 2], [2, 0, 1], [3, 4, 0], [4, 3, 5], [5, 0, 1]])
    dists = np.array([[0, 0.1, 0.1]] * 3 + [[0, 0.1, 0.9], [0, 0.1, 0.2], [0, 0.9, 0.9]])
    assert compat.cluster_by_infomap(nbrs, dists, 0.5, 1).tolist() == [0, 0, 0, 1, 1, -1]
    assert compat.cluster_by_infomap(nbrs, dists, 0.5, 0).tolist() == [0, 0, 0, 1, 1, 2]
    assert compat.cluster_by_infomap(nbrs, dists, 0.99, 1).tolist() == [-1] * 6


# --- the memory's product ---


def moved_by_hand(memory: Tensor, rows: Tensor, labels: Tensor, momentum: float, hard: bool) -> Tensor:
    moved = memory.clone()
    rows, labels = rows[labels >= 0], labels[labels >= 0]
    if hard:
        for label in labels.unique():
            members = rows[labels == label]
            row = members[(members @ memory[label]).argmin()]
            moved[label] = F.normalize(momentum * memory[label] + (1 - momentum) * row, dim=0)
        return moved
    for row, label in zip(rows, labels, strict=True):
        moved[label] = F.normalize(momentum * moved[label] + (1 - momentum) * row, dim=0)
    return moved


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("length", [1.0, 3.0])
def test_cm_moves_in_backward(backend: Backend, hard: bool, length: float) -> None:
    rows, inputs, targets = memory_batch(clusters=5, dim=8, batch=20)
    rows, inputs = F.normalize(rows, dim=1), length * F.normalize(inputs, dim=1)
    memory = backend(rows.clone())
    leaf = backend(inputs.clone()).requires_grad_()
    outputs = (compat.cm_hard if hard else compat.cm)(leaf, backend(targets), memory, 0.3)
    torch.testing.assert_close(outputs.detach().cpu(), inputs @ rows.T)
    torch.testing.assert_close(memory.cpu(), rows, rtol=0, atol=0)
    (upstream,) = torch.autograd.grad(
        F.cross_entropy(outputs / 0.5, backend(targets), ignore_index=-1), outputs, retain_graph=True
    )
    outputs.backward(upstream)
    torch.testing.assert_close(leaf.grad.cpu(), upstream.cpu() @ rows)
    torch.testing.assert_close(memory.cpu(), moved_by_hand(rows, inputs, targets, 0.3, hard), rtol=0, atol=2e-6)


def test_two_products_before_one_backward_see_one_memory(backend: Backend) -> None:
    rows, inputs, targets = memory_batch(clusters=5, dim=8, batch=20)
    rows, inputs = F.normalize(rows, dim=1), F.normalize(inputs, dim=1)
    memory, leaf = backend(rows.clone()), backend(inputs.clone()).requires_grad_()
    first = compat.cm(leaf, backend(targets), memory, 0.2)
    second = compat.cm(leaf, backend(targets), memory, 0.2)
    (first.sum() + second.sum()).backward()
    once = moved_by_hand(rows, inputs, targets, 0.2, hard=False)
    twice = moved_by_hand(once, inputs, targets, 0.2, hard=False)
    torch.testing.assert_close(memory.cpu(), twice, rtol=0, atol=4e-6)
    # the earlier call, with the rows that the later call updated
    want = torch.ones(20, 5) @ rows + torch.ones(20, 5) @ once
    torch.testing.assert_close(leaf.grad.cpu(), want, rtol=0, atol=1e-5)


# --- what is not a matrix of numbers ---


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ([["a", "b"]], TypeError),
        ([[1, 2], [3, 4]], TypeError),
        ([[1.0], [2.0, 3.0]], ValueError),
        (np.zeros((0, 3)), ValueError),
        (np.zeros(3), ValueError),
        (None, TypeError),
    ],
)
def test_features_that_are_no_matrix_are_named(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^features: "):
        compat.compute_ranked_list(value)


# --- numbers without bound ---


@pytest.mark.filterwarnings("ignore:k1")
@pytest.mark.parametrize("huge", [10**7, 2**62])
def test_huge_numbers_are_named(huge: int) -> None:
    square = np.eye(4)
    calls = {
        "k": [
            lambda: compat.compute_ranked_list(torch.eye(4), huge),
            lambda: compat.search_raw_array_pytorch(None, torch.eye(4), torch.eye(4), huge),
            lambda: compat.get_dist_nbr(torch.eye(4), huge),
        ],
        "topk": [lambda: compat.cmc(square, topk=huge)],
        "k2": [lambda: compat.compute_jaccard_distance(torch.eye(4), huge, huge, False)],
    }
    for name, functions in calls.items():
        for function in functions:
            with pytest.raises(ValueError, match=rf"^{name}: expected at most 1000000"):
                function()
    assert compat.compute_jaccard_distance(torch.eye(4), huge, 2, False).shape == (4, 4)
    assert compat.re_ranking(1 - square, 1 - square, 1 - square, huge, huge).shape == (4, 4)
