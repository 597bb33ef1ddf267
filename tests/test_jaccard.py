"""k_reciprocal_encoding and jaccard_distance against the authors' output, the reference and the definition."""

from __future__ import annotations

from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Backend
from hypothesis import given
from hypothesis import strategies as st
from sample_inputs import FEATURES, clustered, identical, neighbours_for, sign_matrices
from torch import Tensor

import ccfast

SETTINGS = [(20, 6), (20, 1), (15, 4), (30, 6), (4, 4), (1, 1), (2, 2)]


def literal_encoding(features: Tensor, k1: int, k2: int) -> np.ndarray:
    """Dense V by the definition, with sets, in float64 until the last step."""
    x = features.double().cpu().numpy()
    n = len(x)
    distances = ((x[:, None, :] - x[None, :, :]) ** 2).sum(-1)
    np.fill_diagonal(distances, -1)  # a row comes first among its own neighbours
    rank = np.argsort(distances, axis=1, kind="stable")[:, :k1].tolist()

    def reciprocal(lists: list[list[int]]) -> list[set[int]]:
        return [{j for j in lists[i] if i in lists[j]} for i in range(n)]

    half = {1: 1, 2: 2, 3: 3, 4: 3, 5: 3, 6: 4, 7: 5, 10: 6, 12: 7, 15: 9, 20: 11, 25: 13, 30: 16}[k1]
    full, halves = reciprocal(rank), reciprocal([row[:half] for row in rank])
    v = np.zeros((n, n))
    for i in range(n):
        members = set(full[i])
        for c in full[i]:
            if 3 * len(halves[c] & full[i]) > 2 * len(halves[c]):
                members |= halves[c]
        columns = sorted(members)
        weights = np.exp(-(2 - 2 * x[columns] @ x[i]))
        v[i, columns] = weights / weights.sum()
    return np.stack([v[rank[i][:k2]].mean(0) for i in range(n)])


def literal_jaccard(v: np.ndarray) -> np.ndarray:
    shared = np.minimum(v[:, None, :], v[None, :, :]).sum(-1)
    return np.maximum(0, 1 - shared / (2 - shared))


def assert_csr(matrix: Tensor, rows: int) -> None:
    assert matrix.layout is torch.sparse_csr and matrix.shape == (rows, rows) and matrix.dtype == torch.float32
    assert matrix.crow_indices().dtype == matrix.col_indices().dtype == torch.int64
    crow, columns = matrix.crow_indices().cpu(), matrix.col_indices().cpu()
    assert crow[0] == 0 and crow[-1] == len(columns) == len(matrix.values())
    for start, end in pairwise(crow):
        assert (columns[start:end].diff() > 0).all(), "columns ascend"


@pytest.mark.parametrize("case", range(4))
def test_dense_distance_is_the_authors(implementation: ModuleType, backend: Backend, golden: Any, case: int) -> None:
    want = golden(f"jaccard_{case}")
    features = backend(torch.from_numpy(want["features"]))
    found = implementation.jaccard_distance(features, int(want["k1"]), int(want["k2"]))
    assert found.dtype == torch.float32 and found.device == features.device
    np.testing.assert_allclose(found.cpu().numpy(), want["jaccard"], rtol=0, atol=2e-6)


@pytest.mark.parametrize("case", range(4))
def test_labels_from_features_are_the_authors_dense_and_sparse(
    implementation: ModuleType, backend: Backend, golden: Any, case: int
) -> None:
    want = golden(f"jaccard_{case}")
    features, k1, k2 = backend(torch.from_numpy(want["features"])), int(want["k1"]), int(want["k2"])
    dense = implementation.jaccard_distance(features, k1, k2)
    for eps, labels in zip(want["eps"].tolist(), want["dbscan_labels"], strict=True):
        sparse = implementation.jaccard_distance(features, k1, k2, max_distance=eps)
        for distances in (dense, sparse):
            found = implementation.dbscan(distances, eps, int(want["dbscan_min_samples"]))
            np.testing.assert_array_equal(found.cpu().numpy(), labels)


@pytest.mark.parametrize("k1, k2", SETTINGS)
@pytest.mark.parametrize("name", ["ties", "duplicates", "odd dimension", "tiny", "one row"])
def test_encoding_is_that_of_the_definition(
    implementation: ModuleType, backend: Backend, name: str, k1: int, k2: int
) -> None:
    features = backend(FEATURES[name]())
    k1, k2 = neighbours_for(features, k1, k2)
    found = implementation.k_reciprocal_encoding(features, k1, k2)
    assert_csr(found, len(features))
    assert found.device == features.device
    want = literal_encoding(features, k1, k2)
    dense = found.to_dense().cpu().numpy()
    np.testing.assert_array_equal(dense != 0, want != 0)
    np.testing.assert_allclose(dense, want, rtol=1e-6, atol=0)


@pytest.mark.parametrize("k1, k2", SETTINGS)
@pytest.mark.parametrize("name", ["ties", "duplicates", "odd dimension", "tiny", "one row"])
def test_dense_distance_is_that_of_the_definition(
    implementation: ModuleType, backend: Backend, name: str, k1: int, k2: int
) -> None:
    features = backend(FEATURES[name]())
    k1, k2 = neighbours_for(features, k1, k2)
    found = implementation.jaccard_distance(features, k1, k2).cpu().numpy()
    np.testing.assert_allclose(found, literal_jaccard(literal_encoding(features, k1, k2)), rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", FEATURES)
def test_op_and_reference_agree(backend: Backend, name: str) -> None:
    features = backend(FEATURES[name]())
    k1, k2 = neighbours_for(features)
    found, want = (module.k_reciprocal_encoding(features, k1, k2) for module in (ccfast, ccfast.reference))
    torch.testing.assert_close(found, want, rtol=1e-6, atol=0)
    found, want = (module.jaccard_distance(features, k1, k2) for module in (ccfast, ccfast.reference))
    torch.testing.assert_close(found, want, rtol=0, atol=2e-6)


def test_op_and_reference_agree_over_several_tiles(backend: Backend) -> None:
    features = backend(clustered(2200, dim=16, identities=150, noise=0.9)[0])
    want = ccfast.reference.jaccard_distance(features, 20, 6)
    torch.testing.assert_close(ccfast.jaccard_distance(features, 20, 6), want, rtol=0, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("max_distance", [0.0, 0.3, 0.6, 0.9, 1 - 1e-12])
@pytest.mark.parametrize("name", FEATURES)
def test_sparse_distance_holds_every_pair_within_the_limit_and_the_diagonal(
    implementation: ModuleType, backend: Backend, name: str, max_distance: float
) -> None:
    features = backend(FEATURES[name]())
    k1, k2 = neighbours_for(features)
    dense = implementation.jaccard_distance(features, k1, k2)
    sparse = implementation.jaccard_distance(features, k1, k2, max_distance=max_distance)
    assert_csr(sparse, len(features))
    assert sparse.device == features.device
    limit = min(np.float32(max_distance), np.nextafter(np.float32(1), np.float32(0)))  # pairs at 1 are never listed
    keep = dense <= float(limit)
    keep.fill_diagonal_(True)
    rows, columns = torch.nonzero(keep, as_tuple=True)
    assert torch.equal(sparse.crow_indices().diff(), keep.sum(1))
    assert torch.equal(sparse.col_indices(), columns)
    assert torch.equal(sparse.values(), dense[rows, columns]), "stored values are bitwise those of the dense matrix"


@pytest.mark.parametrize("name", ["clustered", "ties", "duplicates", "lopsided"])
def test_distance_is_bitwise_symmetric_in_range_and_zero_on_the_diagonal(
    implementation: ModuleType, backend: Backend, name: str
) -> None:
    features = backend(FEATURES[name]())
    found = implementation.jaccard_distance(features, 20, 6)
    assert torch.equal(found, found.T)
    assert found.min() >= 0 and found.max() <= 1
    assert found.diagonal().max() <= 1e-6
    sparse = implementation.jaccard_distance(features, 20, 6, max_distance=0.7).to_dense()
    assert torch.equal(sparse, sparse.T)


@pytest.mark.parametrize("k2", [1, 3])
def test_rows_of_the_encoding_sum_to_one(implementation: ModuleType, backend: Backend, k2: int) -> None:
    encoding = implementation.k_reciprocal_encoding(backend(clustered()[0]), 20, k2)
    torch.testing.assert_close(encoding.to_dense().sum(1).cpu(), torch.ones(300), rtol=0, atol=1e-6)


def copies(of: int, times: int, others: int = 30) -> Tensor:
    """Unit rows; row ``of`` appears ``times`` more, at random positions."""
    rows = clustered(others, dim=16, identities=5)[0]
    rows = torch.cat([rows, rows[of].repeat(times, 1)])
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(of))].contiguous()


@pytest.mark.parametrize("k1, k2", [(1, 1), (4, 1), (4, 2), (10, 6), (12, 12)])
@pytest.mark.parametrize("times", [12, 40])
def test_a_row_with_many_duplicates_has_distance_0_from_itself(
    implementation: ModuleType, backend: Backend, times: int, k1: int, k2: int
) -> None:
    for features in (backend(identical(times)), backend(copies(3, times)), backend(copies(0, times, others=12))):
        encoding = implementation.k_reciprocal_encoding(features, k1, k2)
        assert (encoding.crow_indices().diff() > 0).all()
        dense = implementation.jaccard_distance(features, k1, k2)
        assert (dense.diagonal() <= 1e-6).all()
        sparse = implementation.jaccard_distance(features, k1, k2, max_distance=0.5)
        assert_csr(sparse, len(features))
        assert (sparse.to_dense().diagonal() <= 1e-6).all() and (sparse.values() <= 0.5).all()
        np.testing.assert_allclose(
            dense.cpu().numpy(), literal_jaccard(literal_encoding(features, k1, k2)), rtol=0, atol=2e-6
        )


def test_identical_rows_are_one_cluster_of_dbscan_where_each_has_its_k1_lists_in_common(
    implementation: ModuleType, backend: Backend
) -> None:
    # Row i has itself and rows 0, 1, 2 (or 0-3). Rows 0-3 are mutual neighbours; the others have none.
    features = backend(identical(12))
    distances = implementation.jaccard_distance(features, 4, 1)
    assert implementation.dbscan(distances, 0.5, 1).tolist() == [0, 0, 0, 0, *range(1, 9)]
    distances = implementation.jaccard_distance(features, 4, 2)
    assert implementation.dbscan(distances, 0.7, 2).tolist() == [0] * 12


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("op", ["jaccard_distance", "k_reciprocal_encoding", "infomap"])
def test_rows_normalised_in_half_precision_are_normalised_again(
    implementation: ModuleType, backend: Backend, op: str, dtype: torch.dtype
) -> None:
    if op == "infomap":
        pytest.importorskip("infomap")
    rows = clustered(120, dim=512)[0]
    rows[::7] = 0.02  # bfloat16 rounds all of such a row in one direction
    rows[::7, :400] = 0.0459
    rows = torch.nn.functional.normalize(torch.nn.functional.normalize(rows, dim=1).to(dtype), dim=1)
    if dtype is torch.bfloat16:
        assert ((rows.float().norm(dim=1) - 1).abs() > 1e-3).any()
        with pytest.raises(ValueError, match=r"features: .*torch\.nn\.functional\.normalize.* got norm .* in row"):
            getattr(implementation, op)(backend(rows.float()), 20)
    found = getattr(implementation, op)(backend(rows), 20)
    want = getattr(implementation, op)(backend(torch.nn.functional.normalize(rows.float(), dim=1)), 20)
    found, want = (value if value.layout is torch.strided else value.to_dense() for value in (found, want))
    assert torch.equal(found, want)
    with pytest.raises(ValueError, match=r"features: expected rows of unit norm within 0\.01 .* in row 5"):
        getattr(implementation, op)(backend(torch.where(torch.arange(120)[:, None] == 5, rows * 1.02, rows)), 20)


def test_distances_carry_no_gradient(implementation: ModuleType, backend: Backend) -> None:
    features = backend(clustered(50)[0]).requires_grad_()
    assert not implementation.jaccard_distance(features, 10, 3).requires_grad
    assert not implementation.k_reciprocal_encoding(features, 10, 3).requires_grad


@given(features=sign_matrices(), data=st.data())
def test_property_ties_and_duplicates_follow_the_definition(
    implementation: ModuleType, backend: Backend, features: Tensor, data: st.DataObject
) -> None:
    k1 = data.draw(st.integers(1, min(7, len(features))))
    k2 = data.draw(st.integers(1, k1))
    features = backend(features)
    want = literal_encoding(features, k1, k2)
    found = implementation.k_reciprocal_encoding(features, k1, k2).to_dense().cpu().numpy()
    np.testing.assert_array_equal(found != 0, want != 0)
    np.testing.assert_allclose(found, want, rtol=1e-6, atol=0)
    found = implementation.jaccard_distance(features, k1, k2).cpu().numpy()
    np.testing.assert_allclose(found, literal_jaccard(want), rtol=0, atol=2e-6)
