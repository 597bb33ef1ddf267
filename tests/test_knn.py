"""knn: exact, ordered by the float64 distance, ties to the lower index."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
import torch
from conftest import Backend
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_inputs import FEATURES, clustered, duplicates, identical, sign_matrices, signs, wild_searches
from torch import Tensor

import ccfast

PRECISIONS = ["fp32", "fp16", "bf16"]


def literal_distances(queries: Tensor, features: Tensor) -> Tensor:
    """The sum of docs/exactness.md: 128 lanes in float64, halved to four, which are added in order."""
    difference = queries.double().cpu().numpy()[:, None, :] - features.double().cpu().numpy()[None, :, :]
    lanes = np.zeros((*difference.shape[:2], 128))
    for first in range(0, difference.shape[2], 128):
        part = difference[:, :, first : first + 128]
        lanes[:, :, : part.shape[2]] += part * part
    for half in (64, 32, 16, 8, 4):
        lanes = lanes[:, :, :half] + lanes[:, :, half:]
    return torch.from_numpy(((lanes[..., 0] + lanes[..., 1]) + lanes[..., 2]) + lanes[..., 3])


def literal_knn(queries: Tensor, features: Tensor, k: int, own: Tensor | None) -> tuple[Tensor, Tensor]:
    """The definition: all float64 distances, stably sorted; query i is row ``own[i]`` of the features, and first."""
    distances = literal_distances(queries, features)
    if own is not None:
        distances[torch.arange(len(own)), own] = -1
    values, indices = distances.sort(dim=1, stable=True)
    return indices[:, :k], values[:, :k].clamp_min(0).float()


def assert_knn(
    found: tuple[Tensor, Tensor], queries: Tensor, features: Tensor, k: int, own: Tensor | None = None
) -> None:
    """Compares bit for bit. ``own``: the rows of the features that are the queries, if not all."""
    indices, distances = found
    if queries is features:
        own = torch.arange(len(features))
    want_indices, want_distances = literal_knn(queries, features, k, own)
    assert indices.dtype == torch.int64 and distances.dtype == torch.float32
    assert indices.device == distances.device == features.device
    torch.testing.assert_close(indices.cpu(), want_indices, rtol=0, atol=0)
    torch.testing.assert_close(distances.cpu(), want_distances, rtol=0, atol=0)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", FEATURES)
def test_indices_are_those_of_the_definition(backend: Backend, name: str, precision: str) -> None:
    features = backend(FEATURES[name]())
    k = min(30, len(features))
    assert_knn(ccfast.knn(features, k, precision=precision), features, features, k)


@pytest.mark.parametrize("name", ["clustered", "ties", "duplicates"])
def test_op_and_reference_agree(backend: Backend, name: str) -> None:
    features = backend(FEATURES[name]())
    for ours, theirs in zip(ccfast.knn(features, 25), ccfast.reference.knn(features, 25), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("k", [1, 2, 31, 199, 200])
def test_any_k_up_to_the_number_of_rows(backend: Backend, k: int, precision: str) -> None:
    features = backend(duplicates())
    assert_knn(ccfast.knn(features, k, precision=precision), features, features, k)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_many_rows_search_over_several_tiles(backend: Backend, precision: str) -> None:
    features = backend(signs(2500, dim=64))
    rows = torch.arange(0, 2500, 41)
    indices, distances = ccfast.knn(features, 20, precision=precision)
    assert_knn((indices[rows], distances[rows]), features[rows], features, 20, own=rows)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("num_queries", [1, 5, 70])
def test_queries_search_the_rows_of_features(backend: Backend, num_queries: int, precision: str) -> None:
    features, queries = backend(clustered()[0], 3 * clustered(num_queries, seed=1)[0])
    assert_knn(ccfast.knn(features, 10, queries=queries, precision=precision), queries, features, 10)


def test_a_row_finds_itself_first(backend: Backend) -> None:
    indices, distances = ccfast.knn(backend(clustered()[0]), 3)
    torch.testing.assert_close(indices[:, 0].cpu(), torch.arange(300), rtol=0, atol=0)
    assert (distances[:, 0] == 0).all()


@pytest.mark.parametrize("k", [1, 7, 39, 40])
def test_of_duplicates_the_row_itself_comes_first_and_then_the_lower_index(
    implementation: ModuleType, backend: Backend, k: int
) -> None:
    features = backend(identical(40))
    indices, distances = implementation.knn(features, k)
    for i, row in enumerate(indices.tolist()):
        assert row == [i, *(j for j in range(40) if j != i)][:k]
    assert (distances == 0).all()


def test_queries_that_happen_to_be_the_features_have_no_row_of_their_own(
    implementation: ModuleType, backend: Backend
) -> None:
    features = backend(identical(40))
    indices, _ = implementation.knn(features, 7, queries=features)
    assert torch.equal(indices.cpu(), torch.arange(7).repeat(40, 1))


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("copies", [3, 60, 300])
def test_more_duplicates_than_are_kept_leave_no_row_out(backend: Backend, precision: str, copies: int) -> None:
    rows = clustered(40)[0]
    features = torch.cat([rows, rows[7].repeat(copies, 1), rows, -rows[7].repeat(copies, 1)])
    features = backend(features[torch.randperm(len(features), generator=torch.Generator().manual_seed(2))])
    assert_knn(ccfast.knn(features, 9, precision=precision), features, features, 9)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_features_are_read_exactly(backend: Backend, dtype: torch.dtype, precision: str) -> None:
    features = backend(clustered()[0].to(dtype))
    assert_knn(ccfast.knn(features, 12, precision=precision), features, features, 12)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("scale", [1e-15, 1e-4, 300.0, 1e15])
def test_features_of_any_norm(backend: Backend, scale: float, precision: str) -> None:
    features = backend(clustered()[0] * scale)
    assert_knn(ccfast.knn(features, 12, precision=precision), features, features, 12)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_rows_of_very_different_norms(backend: Backend, precision: str) -> None:
    features = clustered(200)[0] * torch.logspace(-6, 6, 200)[:, None]
    features = backend(features)
    assert_knn(ccfast.knn(features, 12, precision=precision), features, features, 12)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_points_far_from_the_origin_do_not_cancel(backend: Backend, precision: str) -> None:
    features = backend(clustered()[0] + 100)
    assert_knn(ccfast.knn(features, 12, precision=precision), features, features, 12)


@pytest.mark.parametrize("dim", [1, 2, 33, 2048])
def test_dimensions_small_odd_and_large(backend: Backend, dim: int) -> None:
    features = backend(torch.randn(60, dim, generator=torch.Generator().manual_seed(dim)))
    assert_knn(ccfast.knn(features, 9), features, features, 9)


def near_ties(spread: float, num_rows: int, dim: int = 48) -> Tensor:
    """Copies of one unit row, each moved by about ``spread``."""
    generator = torch.Generator().manual_seed(7)
    row = torch.nn.functional.normalize(torch.randn(dim, generator=generator), dim=0)
    return row + spread * dim**-0.5 * torch.randn(num_rows, dim, generator=generator)


@pytest.mark.slow
# More rows than are kept as candidates, so close that half precision (1e-2) or float32 (1e-4, 1e-6) cannot tell
# them: a result that depends on the error of the products must not be certified.
@pytest.mark.parametrize("others", [0, 400], ids=["everywhere", "in some rows"])
@pytest.mark.parametrize("spread", [1e-2, 1e-3, 1e-4, 1e-6])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_near_ties_below_the_resolution_of_the_products(
    backend: Backend, precision: str, spread: float, others: int
) -> None:
    features = torch.cat([clustered(others + 1, dim=48)[0][:others], near_ties(spread, 90)])
    features = backend(features[torch.randperm(len(features), generator=torch.Generator().manual_seed(1))])
    assert_knn(ccfast.knn(features, 6, precision=precision), features, features, 6)


@pytest.mark.parametrize("others", [0, 400], ids=["everywhere", "in some rows"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_near_ties_of_rows_that_half_precision_holds_exactly(backend: Backend, precision: str, others: int) -> None:
    # The only error is the rounding of the products.
    features = torch.cat([clustered(others + 1, dim=48)[0][:others], near_ties(1e-2, 90)]).half()
    features = backend(features)
    assert_knn(ccfast.knn(features, 6, precision=precision), features, features, 6)


def test_rows_beyond_the_first_tile_find_neighbours_in_it_and_the_other_way_round(backend: Backend) -> None:
    features = torch.randn(2062, 16, generator=torch.Generator().manual_seed(4))
    early = torch.tensor([0, 1, 63, 64, 1000, 2046, 2047])
    late = torch.arange(2048, 2055)
    features[late] = features[early] + 1e-3
    features = backend(features)
    indices, distances = ccfast.knn(features, 4)
    rows = torch.cat([early, late, torch.tensor([2061])])
    torch.testing.assert_close(indices[rows, 1][:14].cpu(), torch.cat([late, early]), rtol=0, atol=0)
    assert_knn((indices[rows], distances[rows]), features[rows], features, 4, own=rows)


@pytest.mark.parametrize("num_rows", [4095, 4096, 4097, 4107])
def test_neighbours_at_the_edge_of_a_tile_are_found(backend: Backend, num_rows: int) -> None:
    features = torch.randn(num_rows, 9, generator=torch.Generator().manual_seed(5))
    queries = torch.cat([features[[0, 2047, 2048, 4094, num_rows - 1]] + 1e-3, features[:2]])
    features, queries = backend(features, queries)
    assert_knn(ccfast.knn(features, 3, queries=queries), queries, features, 3)


def test_more_neighbours_than_a_block_keeps(backend: Backend) -> None:
    features, queries = backend(torch.randn(8300, 2, generator=torch.Generator().manual_seed(6)), torch.ones(2, 2))
    assert_knn(ccfast.knn(features, 8200, queries=queries), queries, features, 8200)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_huge_tiny_and_zero_rows(backend: Backend, scale: float) -> None:
    features = torch.cat([torch.zeros(2, 64), scale * clustered(60)[0], torch.zeros(3, 64), clustered(60, seed=1)[0]])
    features = backend(features)
    assert_knn(ccfast.knn(features, 9), features, features, 9)


def test_products_may_be_summed_in_half_precision(backend: Backend) -> None:
    if not hasattr(torch.backends.cuda.matmul, "allow_fp16_accumulation"):
        pytest.skip("torch before 2.7")
    features = backend(torch.cat([clustered()[0], near_ties(1e-2, 60, dim=64)]))
    before = torch.backends.cuda.matmul.allow_fp16_accumulation
    try:
        torch.backends.cuda.matmul.allow_fp16_accumulation = True
        found = ccfast.knn(features, 12)
    finally:
        torch.backends.cuda.matmul.allow_fp16_accumulation = before
    assert_knn(found, features, features, 12)


@pytest.mark.parametrize("allowed", [True, False])
def test_torch_settings_of_products_stay_as_they_were(backend: Backend, allowed: bool) -> None:
    settings = torch.backends.cuda.matmul
    before = settings.allow_fp16_reduced_precision_reduction
    try:
        settings.allow_fp16_reduced_precision_reduction = allowed
        ccfast.knn(backend(clustered()[0]), 12)
        assert settings.allow_fp16_reduced_precision_reduction == allowed
    finally:
        settings.allow_fp16_reduced_precision_reduction = before


def test_strided_features_are_accepted(backend: Backend) -> None:
    wide = backend(torch.randn(50, 40, generator=torch.Generator().manual_seed(3)))
    for features in (wide[:, ::2], wide.T, wide[::3, 5:]):
        assert_knn(ccfast.knn(features, 6), features, features, 6)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_float32_matmul_precision_and_autocast_do_not_matter(backend: Backend, precision: str) -> None:
    # Far from the origin products in half precision say nothing about distances: only a search that knows how coarse
    # its products are, and falls back, still finds the neighbours.
    features = backend(clustered()[0] + 3)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        coarse = ccfast.knn(features, 12, precision=precision)
    finally:
        torch.set_float32_matmul_precision(before)
    assert_knn(coarse, features, features, 12)
    with torch.autocast(backend.device.type, dtype=torch.bfloat16):
        assert_knn(ccfast.knn(features, 12, precision=precision), features, features, 12)


def test_result_carries_no_gradient_and_leaves_features_alone(backend: Backend) -> None:
    features = backend(clustered()[0])
    before = features.clone()
    indices, distances = ccfast.knn(features.requires_grad_(), 4)
    assert not distances.requires_grad and not indices.requires_grad
    assert torch.equal(features.detach(), before)


@given(features=sign_matrices(), data=st.data())
def test_property_ties_and_duplicates_agree_bitwise(backend: Backend, features: Tensor, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(features)))
    precision = data.draw(st.sampled_from(PRECISIONS))
    features = backend(features)
    assert_knn(ccfast.knn(features, k, precision=precision), features, features, k)


@given(rows=st.lists(st.lists(st.integers(-3, 3), min_size=3, max_size=3), min_size=2, max_size=20), data=st.data())
def test_property_queries_of_small_integers_agree_bitwise(
    backend: Backend, rows: list[list[int]], data: st.DataObject
) -> None:
    split = data.draw(st.integers(1, len(rows) - 1))
    queries, features = backend(torch.tensor(rows[:split]).float(), torch.tensor(rows[split:]).float())
    k = data.draw(st.integers(1, len(features)))
    assert_knn(ccfast.knn(features, k, queries=queries), queries, features, k)


# --- any finite values ---


def random(rows: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def flushed() -> Iterator[None]:
    """Subnormal numbers count as 0 in this thread."""
    if not torch.set_flush_denormal(True):
        pytest.skip("this machine cannot flush subnormal numbers")
    yield
    torch.set_flush_denormal(False)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("ratio", [1e6, 1e9, 1e12, 1e14, 1e17, 1e20, 1e30, 1e38])
def test_queries_that_dwarf_the_features(
    implementation: ModuleType, backend: Backend, ratio: float, precision: str
) -> None:
    for num_rows, dim, k in ((110, 5, 57), (300, 4, 200), (70, 1, 70), (90, 130, 3)):
        features, queries = backend(random(num_rows, dim), (random(24, dim, seed=1) * ratio).clamp(-3e38, 3e38))
        found = implementation.knn(features, k, queries=queries, precision=precision)
        assert_knn(found, queries, features, k)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("ratio", [1e9, 1e12, 1e17, 1e30])
def test_features_that_dwarf_the_queries(backend: Backend, ratio: float, precision: str) -> None:
    features, queries = backend(random(110, 5) * ratio, random(24, 5, seed=1))
    assert_knn(ccfast.knn(features, 57, queries=queries, precision=precision), queries, features, 57)


def test_many_neighbours_of_queries_that_dwarf_the_features(backend: Backend) -> None:
    features, queries = backend(random(5000, 4), random(6, 4, seed=1) * 1e19)
    assert_knn(ccfast.knn(features, 4000, queries=queries), queries, features, 4000)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("scale", [1e-45, 1e-41, 1e-38, 1e-30, 1e30, 1e38])
def test_the_ends_of_float32(implementation: ModuleType, backend: Backend, scale: float, precision: str) -> None:
    features = backend((random(120, 16) * scale).clamp(-3.4e38, 3.4e38))
    assert_knn(implementation.knn(features, 9, precision=precision), features, features, 9)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_both_ends_of_float32_in_one_matrix(implementation: ModuleType, backend: Backend, precision: str) -> None:
    scales = torch.tensor([1e38, 1e-38, 1.0, 1e-44, 0.0])[torch.arange(150) % 5]
    features = backend((random(150, 16) * scales[:, None]).clamp(-3.4e38, 3.4e38))
    assert_knn(implementation.knn(features, 40, precision=precision), features, features, 40)


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("scale", [1e-44, 1e-38, 1e-20, 1.0, 1e38])
@pytest.mark.parametrize("mixed", [False, True])
def test_flushing_of_subnormal_numbers_does_not_matter(
    implementation: ModuleType, backend: Backend, flushed: None, scale: float, mixed: bool, precision: str
) -> None:
    torch.set_flush_denormal(False)  # as a scalar above would be 0
    features = (random(300, 16) * scale).clamp(-3.4e38, 3.4e38)
    if mixed:
        features[::2] = random(150, 16, seed=3)
    expected = literal_knn(features, features, 10, torch.arange(300))
    features = backend(features)
    torch.set_flush_denormal(True)
    indices, distances = implementation.knn(features, 10, precision=precision)
    torch.set_flush_denormal(False)
    assert torch.equal(indices.cpu(), expected[0]) and torch.equal(distances.cpu(), expected[1])


@pytest.mark.parametrize("k", [1, 12])
def test_rows_of_zeros_only(implementation: ModuleType, backend: Backend, k: int) -> None:
    features = backend(torch.zeros(12, 3))
    assert_knn(implementation.knn(features, k), features, features, k)


def check_wild(backend: Backend, search: tuple[Tensor, Tensor | None, int, str]) -> None:
    features, queries, k, precision = search
    features, queries = backend(features, queries)
    found = ccfast.knn(features, k, queries=queries, precision=precision)
    assert_knn(found, features if queries is None else queries, features, k)


@given(search=wild_searches())
def test_property_values_of_any_size_agree_bitwise(
    backend: Backend, search: tuple[Tensor, Tensor | None, int, str]
) -> None:
    check_wild(backend, search)


@given(search=wild_searches())
def test_property_the_reference_agrees_bitwise(search: tuple[Tensor, Tensor | None, int, str]) -> None:
    features, queries, k, _ = search
    assert_knn(
        ccfast.reference.knn(features, k, queries=queries), features if queries is None else queries, features, k
    )


@pytest.mark.huge
@settings(max_examples=4000)
@given(search=wild_searches(most_rows=140, most_dims=140))
def test_campaign_values_of_any_size_agree_bitwise(
    backend: Backend, search: tuple[Tensor, Tensor | None, int, str]
) -> None:
    check_wild(backend, search)
