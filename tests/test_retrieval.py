"""evaluate_ranking and k_reciprocal_rerank."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Backend
from hypothesis import given
from hypothesis import strategies as st
from sample_inputs import clustered, duplicates, identical, retrieval_case, sign_matrices, signs
from sklearn.metrics import average_precision_score
from torch import Tensor

import ccfast
from ccfast.ops.retrieval import rerank_in_blocks

Case = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]


def literal_metrics(case: Case, max_rank: int, junk_id: int | None = None) -> tuple[float, list[float], float]:
    """The protocol query by query: scikit-learn's AP, first match, last match."""
    distances, query_ids, gallery_ids, query_cams, gallery_cams = (
        None if value is None else value.cpu().numpy() for value in case
    )
    precisions, firsts, penalties = [], [], []
    for q in range(len(query_ids)):
        entries = [
            (distances[q, g], g, gallery_ids[g] == query_ids[q])
            for g in range(len(gallery_ids))
            if (gallery_ids[g] != query_ids[q] or query_cams is None or gallery_cams[g] != query_cams[q])
            and gallery_ids[g] != junk_id
        ]
        matches = np.array([match for *_, match in entries], bool)
        if not matches.any():
            continue
        precisions.append(average_precision_score(matches, -np.array([distance for distance, *_ in entries])))
        ranks = [rank for rank, (*_, match) in enumerate(sorted(entries, key=lambda e: e[:2]), 1) if match]
        firsts.append(ranks[0])
        penalties.append(len(ranks) / ranks[-1])
    cmc = [float(np.mean([first <= rank for first in firsts])) for rank in range(1, max_rank + 1)]
    return float(np.mean(precisions)), cmc, float(np.mean(penalties))


def assert_metrics(
    module: ModuleType, case: Case, max_rank: int = 50, junk_id: int | None = None
) -> ccfast.RankingMetrics:
    found = module.evaluate_ranking(*case, max_rank=max_rank, junk_id=junk_id)
    mean_precision, cmc, penalty = literal_metrics(case, max_rank, junk_id)
    assert isinstance(found.mAP, float) and isinstance(found.mINP, float)
    assert found.cmc.dtype == torch.float64 and found.cmc.shape == (max_rank,)
    assert found.cmc.device == case[0].device
    assert found.mAP == pytest.approx(mean_precision, abs=1e-9)
    assert found.cmc.tolist() == pytest.approx(cmc, abs=1e-9)
    assert found.mINP == pytest.approx(penalty, abs=1e-9)
    return found


def test_metrics_are_the_authors(implementation: ModuleType, backend: Backend, golden: Any) -> None:
    want = golden("retrieval")
    names = ("distance", "query_ids", "gallery_ids", "query_cams", "gallery_cams")
    case = backend(*(torch.from_numpy(want[name]) for name in names))
    found = implementation.evaluate_ranking(*case, max_rank=20)
    assert found.mAP == pytest.approx(float(want["mAP"]), abs=1e-9)
    np.testing.assert_allclose(found.cmc.cpu().numpy(), want["cmc"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("levels", [None, 12, 3, 1])
@pytest.mark.parametrize("seed", range(3))
def test_metrics_follow_the_protocol_with_and_without_ties(
    implementation: ModuleType, backend: Backend, seed: int, levels: int | None
) -> None:
    assert_metrics(implementation, backend(*retrieval_case(levels=levels, seed=seed)))


def test_without_cameras_nothing_is_dropped(implementation: ModuleType, backend: Backend) -> None:
    distances, query_ids, gallery_ids, query_cams, gallery_cams = backend(*retrieval_case())
    found = assert_metrics(implementation, (distances, query_ids, gallery_ids, None, None))
    assert found.mAP != implementation.evaluate_ranking(distances, query_ids, gallery_ids, query_cams, gallery_cams).mAP
    apart = torch.zeros_like(query_cams), torch.ones_like(gallery_cams)
    assert found.mAP == implementation.evaluate_ranking(distances, query_ids, gallery_ids, *apart).mAP


def test_a_ranking_worked_out_by_hand(implementation: ModuleType, backend: Backend) -> None:
    # Query 0 finds its matches at ranks 2 and 4 of 5; query 1 at rank 1; query 2 has none and does not count.
    distances = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5], [0.9, 0.8, 0.7, 0.6, 0.1], [0.1, 0.2, 0.3, 0.4, 0.5]])
    query_ids, gallery_ids = torch.tensor([1, 2, 9]), torch.tensor([5, 1, 5, 1, 2])
    found = implementation.evaluate_ranking(*backend(distances, query_ids, gallery_ids), None, None, max_rank=4)
    assert found.mAP == pytest.approx(((1 / 2 + 2 / 4) / 2 + 1) / 2)
    assert found.cmc.tolist() == [0.5, 1, 1, 1]
    assert found.mINP == pytest.approx((2 / 4 + 1) / 2)


def test_ties_share_a_threshold_in_map_and_keep_gallery_order_in_cmc(
    implementation: ModuleType, backend: Backend
) -> None:
    distances, query_ids = torch.zeros(1, 4), torch.tensor([1])
    early, late = torch.tensor([1, 0, 0, 0]), torch.tensor([0, 0, 0, 1])
    first, last = (
        implementation.evaluate_ranking(*backend(distances, query_ids, ids), None, None, max_rank=4)
        for ids in (early, late)
    )
    assert first.mAP == last.mAP == 0.25
    assert first.cmc.tolist() == [1, 1, 1, 1] and last.cmc.tolist() == [0, 0, 0, 1]
    assert (first.mINP, last.mINP) == (1, 0.25)


def test_the_curve_is_constant_past_the_gallery(implementation: ModuleType, backend: Backend) -> None:
    cmc = assert_metrics(implementation, backend(*retrieval_case(gallery=12)), max_rank=30).cmc
    assert (cmc[11:] == cmc[11]).all() and cmc[11] == 1


def test_infinite_distances_rank_last(implementation: ModuleType, backend: Backend) -> None:
    distances, *rest = backend(*retrieval_case())
    infinite, largest = distances.clone(), distances.clone()
    infinite[:, ::4], largest[:, ::4] = torch.inf, 1e9
    found, want = (implementation.evaluate_ranking(d, *rest) for d in (infinite, largest))
    assert found.mAP == want.mAP and torch.equal(found.cmc, want.cmc) and found.mINP == want.mINP


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_other_floating_dtypes_are_ranked_as_they_are(
    implementation: ModuleType, backend: Backend, dtype: torch.dtype
) -> None:
    distances, *rest = backend(*retrieval_case())
    found = implementation.evaluate_ranking(distances.to(dtype), *rest)
    want = literal_metrics((distances.to(dtype).double(), *rest), 50)
    assert found.mAP == pytest.approx(want[0], abs=1e-9) and found.cmc.tolist() == pytest.approx(want[1], abs=1e-9)


def test_distances_that_differ_only_in_float64_are_no_tie(implementation: ModuleType, backend: Backend) -> None:
    distances = backend(torch.tensor([[1.0 + 1e-12, 1.0]], dtype=torch.float64))
    ids = backend(torch.tensor([1])), backend(torch.tensor([0, 1]))
    assert implementation.evaluate_ranking(distances, *ids, None, None).mAP == 1


@pytest.mark.slow
@pytest.mark.parametrize("with_cameras", [True, False])
@pytest.mark.parametrize("levels", [None, 12, 1])
@pytest.mark.parametrize("junk_id", [-1, 0, 3, 2**63 - 1])
def test_junk_is_neither_match_nor_miss(
    implementation: ModuleType, backend: Backend, junk_id: int, levels: int | None, with_cameras: bool
) -> None:
    distances, query_ids, gallery_ids, *cameras = retrieval_case(queries=30, gallery=200, levels=levels)
    gallery_ids[::5] = -1
    query_ids[:3] = -1
    case = backend(distances, query_ids, gallery_ids, *(cameras if with_cameras else (None, None)))
    found = assert_metrics(implementation, case, junk_id=junk_id)
    kept_gallery, kept_queries = gallery_ids != junk_id, query_ids != junk_id
    without = backend(distances[kept_queries][:, kept_gallery], query_ids[kept_queries], gallery_ids[kept_gallery])
    left = (cameras[0][kept_queries], cameras[1][kept_gallery]) if with_cameras else (None, None)
    want = implementation.evaluate_ranking(*without, *backend(*left))
    assert (found.mAP, found.mINP) == pytest.approx((want.mAP, want.mINP), rel=1e-12)
    torch.testing.assert_close(found.cmc, want.cmc, rtol=1e-12, atol=0)


def test_minus_one_is_an_identity_like_any_other_unless_it_is_called_junk(
    implementation: ModuleType, backend: Backend
) -> None:
    distances, ids = backend(torch.tensor([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]]), torch.tensor([-1, 7]))
    gallery_ids = backend(torch.tensor([-1, 7, -1]))
    assert implementation.evaluate_ranking(distances, ids, gallery_ids).mAP == pytest.approx((5 / 6 + 1 / 2) / 2)
    assert implementation.evaluate_ranking(distances, ids, gallery_ids, junk_id=-1).mAP == 1
    with pytest.raises(ValueError, match=r"query_ids, gallery_ids: .* match"):
        implementation.evaluate_ranking(distances, ids, gallery_ids * 0 - 1, junk_id=-1)


def test_strided_distances(implementation: ModuleType, backend: Backend) -> None:
    distances, *rest = backend(*retrieval_case())
    assert_metrics(implementation, (distances.T.contiguous().T, *rest))


@given(data=st.data(), queries=st.integers(1, 4), gallery=st.integers(1, 15))
def test_property_metrics_follow_the_protocol(
    implementation: ModuleType, backend: Backend, data: st.DataObject, queries: int, gallery: int
) -> None:
    def integers(length: int, high: int) -> Tensor:
        return torch.tensor(data.draw(st.lists(st.integers(0, high), min_size=length, max_size=length)))

    distances = integers(queries * gallery, 3).reshape(queries, gallery).float()
    query_ids, gallery_ids = integers(queries, 2), integers(gallery, 2)
    query_cams, gallery_cams = integers(queries, 1), integers(gallery, 1)
    query_ids[0], gallery_ids[0], query_cams[0], gallery_cams[0] = 1, 1, 0, 1  # one query has a match
    assert_metrics(implementation, backend(distances, query_ids, gallery_ids, query_cams, gallery_cams), max_rank=7)


def literal_rerank(query: Tensor, gallery: Tensor, k1: int, k2: int, lambda_value: float) -> np.ndarray:
    """The authors' steps on dense float64 matrices, ranked by the exact distance."""
    x = torch.cat([query, gallery]).double().cpu().numpy()
    squared = ((x[:, None, :] - x[None, :, :]) ** 2).sum(-1)
    # A row comes first among its own neighbours.
    rank = np.argsort(np.where(np.eye(len(x), dtype=bool), -1, squared), axis=1, kind="stable")
    largest = squared.max(axis=0)
    scaled = np.divide(squared, largest, out=np.zeros_like(squared), where=largest > 0).T
    half = int(np.around(k1 / 2)) + 1

    def reciprocal(i: int, columns: int) -> np.ndarray:
        forward = rank[i, :columns]
        return forward[(rank[forward, :columns] == i).any(1)]

    v = np.zeros_like(scaled)
    for i in range(len(x)):
        own = reciprocal(i, k1 + 1)
        parts = [own]
        for c in own:
            candidates = reciprocal(c, half)
            if 3 * len(np.intersect1d(candidates, own)) > 2 * len(candidates):
                parts.append(candidates)
        columns = np.unique(np.concatenate(parts))
        weights = np.exp(-scaled[i, columns])
        v[i, columns] = weights / weights.sum()
    if k2 > 1:
        v = np.stack([v[rank[i, :k2]].mean(0) for i in range(len(x))])
    q = len(query)
    shared = np.minimum(v[:q, None, :], v[None, q:, :]).sum(-1)
    return (1 - lambda_value) * (1 - shared / (2 - shared)) + lambda_value * scaled[:q, q:]


def assert_rerank(module: ModuleType, query: Tensor, gallery: Tensor, k1: int, k2: int, lambda_value: float) -> None:
    found = module.k_reciprocal_rerank(query, gallery, k1, k2, lambda_value)
    assert found.dtype == torch.float32 and found.device == query.device
    np.testing.assert_allclose(
        found.cpu().numpy(), literal_rerank(query, gallery, k1, k2, lambda_value), rtol=0, atol=2e-6
    )


def test_reranked_distances_are_the_authors(implementation: ModuleType, backend: Backend, golden: Any) -> None:
    want = golden("rerank")
    query, gallery = backend(torch.from_numpy(want["query"]), torch.from_numpy(want["gallery"]))
    found = implementation.k_reciprocal_rerank(
        query, gallery, int(want["k1"]), int(want["k2"]), float(want["lambda_value"])
    )
    np.testing.assert_allclose(found.cpu().numpy(), want["reranked"], rtol=0, atol=2e-6)


RERANK_INPUTS = {
    "clustered": lambda: (clustered(30, seed=1)[0], clustered(120)[0]),
    "norms of their own": lambda: (4 * clustered(30, seed=1)[0], clustered(120)[0] * torch.rand(120, 1) * 9),
    "far from the origin": lambda: (clustered(30, seed=1)[0] + 20, clustered(120)[0] + 20),
    "ties": lambda: (signs(40), signs(150, seed=1)),
    "duplicates": lambda: (duplicates(40), duplicates(150)),
    "more queries than gallery": lambda: (clustered(90)[0], clustered(5, seed=1)[0]),
}


@pytest.mark.parametrize("k1, k2, lambda_value", [(20, 6, 0.3), (7, 1, 0.0), (1, 1, 0.5), (30, 4, 1.0)])
@pytest.mark.parametrize("name", RERANK_INPUTS)
def test_reranking_follows_the_authors_steps(
    implementation: ModuleType, backend: Backend, name: str, k1: int, k2: int, lambda_value: float
) -> None:
    torch.manual_seed(0)
    assert_rerank(implementation, *backend(*RERANK_INPUTS[name]()), k1, k2, lambda_value)


def test_op_and_reference_agree_over_several_tiles(backend: Backend) -> None:
    query, gallery = backend(clustered(100, dim=16, seed=1)[0], clustered(2100, dim=16, identities=150, noise=0.9)[0])
    want = ccfast.reference.k_reciprocal_rerank(query, gallery)
    torch.testing.assert_close(ccfast.k_reciprocal_rerank(query, gallery), want, rtol=0, atol=2e-6)


def test_identical_points_rerank_without_nan(implementation: ModuleType, backend: Backend) -> None:
    found = implementation.k_reciprocal_rerank(backend(identical(4)), backend(identical(8)), 11, 3)
    assert (found.abs() <= 1e-6).all()


@pytest.mark.parametrize("k1, k2", [(3, 1), (5, 3), (11, 11)])
def test_more_duplicates_than_neighbours(implementation: ModuleType, backend: Backend, k1: int, k2: int) -> None:
    rows = clustered(20, dim=16)[0]
    query, gallery = torch.cat([rows[:3], rows[7].repeat(9, 1)]), torch.cat([rows, rows[7].repeat(30, 1)])
    assert_rerank(implementation, *backend(query, gallery), k1, k2, 0.3)


@pytest.mark.parametrize("flush", [False, True])
@pytest.mark.parametrize("scale", [1e-38, 1e-20, 1e20, 1e38])
def test_reranking_of_rows_at_the_ends_of_float32(
    implementation: ModuleType, backend: Backend, scale: float, flush: bool
) -> None:
    query, gallery = clustered(10, dim=16, seed=1)[0] * scale, clustered(40, dim=16)[0] * scale
    want = literal_rerank(query, gallery, 9, 3, 0.3)
    query, gallery = backend(query, gallery)
    torch.set_flush_denormal(flush)
    found = implementation.k_reciprocal_rerank(query, gallery, 9, 3, 0.3)
    torch.set_flush_denormal(False)
    np.testing.assert_allclose(found.cpu().numpy(), want, rtol=0, atol=2e-6)


def test_all_rows_may_be_neighbours(implementation: ModuleType, backend: Backend) -> None:
    assert_rerank(implementation, *backend(clustered(4)[0], clustered(6, seed=1)[0]), 9, 9, 0.3)


@given(query=sign_matrices(max_rows=8), gallery=sign_matrices(max_rows=16), data=st.data())
def test_property_reranking_of_ties(
    implementation: ModuleType, backend: Backend, query: Tensor, gallery: Tensor, data: st.DataObject
) -> None:
    most = len(query) + len(gallery) - 1
    k1 = data.draw(st.integers(1, most))
    k2 = data.draw(st.integers(1, k1))
    assert_rerank(implementation, *backend(query, gallery), k1, k2, 0.3)


#: Heights of the blocks of 130 queries.
HEIGHTS = [[130], [65, 65], [44, 43, 43], [128, 2], [1, 129], [0, 64, 0, 66], [1] * 130]


def blocks(query: Tensor, gallery: Tensor, lambda_value: float, heights: list[int]) -> Tensor:
    parts = list(rerank_in_blocks(query, gallery, 20, 6, lambda_value, heights))
    assert [tuple(part.shape) for part in parts] == [(height, len(gallery)) for height in heights]
    return torch.cat(parts)


@pytest.mark.parametrize("heights", HEIGHTS, ids=str)
def test_blocks_of_queries_are_the_rows_of_the_whole(backend: Backend, heights: list[int]) -> None:
    """The Jaccard part is equal bit for bit; the last bits of products may depend on the height of a block."""
    query, gallery = backend(clustered(130, seed=1)[0], clustered(300)[0])
    whole = ccfast.k_reciprocal_rerank(query, gallery, lambda_value=0.0)
    assert torch.equal(blocks(query, gallery, 0.0, heights), whole)
    whole = ccfast.k_reciprocal_rerank(query, gallery, lambda_value=1.0)
    torch.testing.assert_close(blocks(query, gallery, 1.0, heights), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("heights", HEIGHTS, ids=str)
def test_blocks_of_queries_are_the_whole_bit_for_bit_where_products_are_exact(
    backend: Backend, heights: list[int]
) -> None:
    """Rows of -1 and 1, each with its opposite, have a mean of 0 and products that are small integers."""
    half_query, half_gallery = signs(65), signs(150, seed=1)
    query, gallery = backend(torch.cat([half_query, -half_query]), torch.cat([half_gallery, -half_gallery]))
    whole = ccfast.k_reciprocal_rerank(query, gallery, lambda_value=0.3)
    assert torch.equal(blocks(query, gallery, 0.3, heights), whole)


@pytest.mark.parametrize("flush", [False, True])
def test_blocks_of_tiny_rows_under_flush_denormal(backend: Backend, flush: bool) -> None:
    query, gallery = clustered(10, dim=16, seed=1)[0] * 1e-38, clustered(40, dim=16)[0] * 1e-38
    want = literal_rerank(query, gallery, 20, 6, 0.3)
    query, gallery = backend(query, gallery)
    torch.set_flush_denormal(flush)
    found = blocks(query, gallery, 0.3, [4, 6])
    torch.set_flush_denormal(False)
    np.testing.assert_allclose(found.cpu().numpy(), want, rtol=0, atol=2e-6)


@pytest.mark.parametrize("begin, end", [(-1, 3), (3, 2), (0, 11)])
def test_a_block_beyond_the_queries_is_refused(backend: Backend, begin: int, end: int) -> None:
    rows = backend(clustered(40)[0])
    encoding = torch.ops.ccfast.rerank_encoding(rows[:10], rows[10:], 7, 3)
    with pytest.raises(ValueError, match=f"expected a part of the 10 queries, got {begin}, {end}"):
        torch.ops.ccfast.reranked_distances(*encoding, 10, 0.3, begin, end)
