"""dbscan: scikit-learn's labels, number for number, from dense and sparse distances."""

from __future__ import annotations

import warnings
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from conftest import Backend
from hypothesis import given
from hypothesis import strategies as st
from sample_inputs import clustered, symmetric_distances, to_csr
from sklearn.cluster import DBSCAN
from torch import Tensor

CASES = {
    "spread": lambda: symmetric_distances(150),
    "on a grid": lambda: symmetric_distances(150, levels=10, seed=1),
    "coarse grid": lambda: symmetric_distances(80, levels=2, seed=2),
    "cosine of clusters": lambda: (1 - (x := clustered(120, noise=0.9)[0]) @ x.T).clamp_min(0),
    "two points": lambda: symmetric_distances(2),
    "one point": lambda: torch.zeros(1, 1),
}


def sklearn_labels(distances: Tensor, eps: float, min_samples: int) -> np.ndarray:
    distances = distances.cpu()
    if distances.layout is torch.sparse_csr:
        parts = (distances.values(), distances.col_indices(), distances.crow_indices())
        matrix = scipy.sparse.csr_matrix(tuple(part.numpy() for part in parts), shape=tuple(distances.shape))
    else:
        matrix = distances.numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rows of the graph that are not sorted by distance
        return DBSCAN(eps=max(eps, 1e-30), min_samples=min_samples, metric="precomputed").fit_predict(matrix)


def assert_labels(module: ModuleType, distances: Tensor, eps: float, min_samples: int) -> np.ndarray:
    found = module.dbscan(distances, eps, min_samples)
    assert found.dtype == torch.int64 and found.device == distances.device
    np.testing.assert_array_equal(found.cpu().numpy(), sklearn_labels(distances, eps, min_samples))
    return found.cpu().numpy()


@pytest.mark.parametrize("case", range(4))
def test_labels_of_the_authors_distances(implementation: ModuleType, backend: Backend, golden: Any, case: int) -> None:
    want = golden(f"jaccard_{case}")
    distances = backend(torch.from_numpy(want["jaccard"]))
    for eps, labels in zip(want["eps"].tolist(), want["dbscan_labels"], strict=True):
        found = implementation.dbscan(distances, eps, int(want["dbscan_min_samples"]))
        np.testing.assert_array_equal(found.cpu().numpy(), labels)


@pytest.mark.parametrize("min_samples", [1, 2, 4, 9])
@pytest.mark.parametrize("eps", [0.0, 0.1, 0.2, 0.5])
@pytest.mark.parametrize("name", CASES)
def test_dense_labels_are_those_of_scikit_learn(
    implementation: ModuleType, backend: Backend, name: str, eps: float, min_samples: int
) -> None:
    assert_labels(implementation, backend(CASES[name]()), eps, min_samples)


@pytest.mark.parametrize("min_samples", [1, 2, 4, 9])
@pytest.mark.parametrize("eps", [0.0, 0.1, 0.2, 0.5])
@pytest.mark.parametrize("name", CASES)
def test_sparse_labels_are_those_of_scikit_learn(
    implementation: ModuleType, backend: Backend, name: str, eps: float, min_samples: int
) -> None:
    distances = CASES[name]()
    sparse = to_csr(distances, distances <= 0.3)
    assert_labels(implementation, backend(sparse), eps, min_samples)
    if eps <= 0.3:
        dense = implementation.dbscan(backend(distances), eps, min_samples)
        assert torch.equal(implementation.dbscan(backend(sparse), eps, min_samples), dense)


def test_the_cases_have_clusters_borders_and_noise() -> None:
    # Otherwise the comparisons above would prove little.
    for name in ("spread", "on a grid"):
        distances = CASES[name]()
        labels = sklearn_labels(distances, 0.1, 4)
        core = (distances <= np.float32(0.1)).sum(1).numpy() >= 4
        border = (labels >= 0) & ~core
        assert labels.max() >= 5 and (labels == -1).sum() >= 5 and border.sum() >= 5


def test_a_border_point_takes_the_lowest_label_in_reach(implementation: ModuleType, backend: Backend) -> None:
    # Points on a line; number 3 is between two clusters and a core point of neither. The right one comes first.
    line = torch.tensor([10.0, 10.1, 10.2, 9.2, 8.4, 8.3, 8.2])
    distances = backend((line[:, None] - line[None, :]).abs())
    assert implementation.dbscan(distances, 0.81, 4).tolist() == [0, 0, 0, 0, 1, 1, 1]
    flipped = distances.flip(0, 1)
    assert implementation.dbscan(flipped, 0.81, 4).tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_a_missing_diagonal_entry_counts_as_zero(implementation: ModuleType, backend: Backend) -> None:
    distances = symmetric_distances(80, levels=10)
    sparse = backend(to_csr(distances, (distances <= 0.2) & ~torch.eye(80, dtype=torch.bool)))
    labels = assert_labels(implementation, sparse, 0.2, 4)
    np.testing.assert_array_equal(labels, implementation.dbscan(backend(distances), 0.2, 4).cpu().numpy())


@pytest.mark.parametrize("sparse", [False, True])
def test_a_diagonal_beyond_eps_is_taken_as_given(implementation: ModuleType, backend: Backend, sparse: bool) -> None:
    distances = symmetric_distances(80, levels=10)
    distances.fill_diagonal_(3.0)
    given_matrix = to_csr(distances, (distances <= 0.2) | torch.eye(80, dtype=torch.bool)) if sparse else distances
    labels = assert_labels(implementation, backend(given_matrix), 0.2, 4)
    zeroed = distances.clone().fill_diagonal_(0)
    assert (labels != sklearn_labels(zeroed, 0.2, 4)).any(), "the diagonal mattered"


def test_stored_zeros_are_distances_of_zero(implementation: ModuleType, backend: Backend) -> None:
    sparse = backend(to_csr(torch.zeros(5, 5), torch.ones(5, 5, dtype=torch.bool)))
    assert implementation.dbscan(sparse, 0.0, 5).tolist() == [0] * 5


def test_a_matrix_without_entries_is_noise(implementation: ModuleType, backend: Backend) -> None:
    empty = backend(to_csr(torch.zeros(6, 6), torch.zeros(6, 6, dtype=torch.bool)))
    assert implementation.dbscan(empty, 0.5, 2).tolist() == [-1] * 6
    assert implementation.dbscan(empty, 0.5, 1).tolist() == list(range(6))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_floating_dtypes_are_compared_in_float32(
    implementation: ModuleType, backend: Backend, dtype: torch.dtype
) -> None:
    distances = backend(symmetric_distances(100, levels=16).to(dtype))
    want = sklearn_labels(distances.float(), 0.0625, 3)
    np.testing.assert_array_equal(implementation.dbscan(distances, 0.0625, 3).cpu().numpy(), want)
    sparse = to_csr(distances.cpu(), distances.cpu() <= 0.1)
    np.testing.assert_array_equal(implementation.dbscan(backend(sparse), 0.0625, 3).cpu().numpy(), want)


def test_eps_is_rounded_to_float32_before_it_is_compared(implementation: ModuleType, backend: Backend) -> None:
    # float32(0.6) > 0.6 in float64: a point at exactly float32(0.6) is within eps = 0.6.
    step = torch.full((3, 3), 0.6).fill_diagonal_(0)
    assert float(step[0, 1]) > 0.6
    assert implementation.dbscan(backend(step), 0.6, 3).tolist() == [0, 0, 0]
    below = float(np.nextafter(np.float32(0.6), np.float32(0)))
    assert implementation.dbscan(backend(step), below, 3).tolist() == [-1, -1, -1]


def test_infinite_distances_are_beyond_any_eps(implementation: ModuleType, backend: Backend) -> None:
    distances = torch.full((4, 4), torch.inf).fill_diagonal_(0)
    distances[0, 1] = distances[1, 0] = 3e38
    sparse = to_csr(distances, torch.ones(4, 4, dtype=torch.bool))
    for matrix in (distances, sparse, distances.double()):
        for eps in (3.1e38, 1e39, 1e300):
            assert implementation.dbscan(backend(matrix), eps, 2).tolist() == [0, 0, -1, -1]


def test_a_strided_matrix_is_read_in_place(implementation: ModuleType, backend: Backend) -> None:
    wide = backend(symmetric_distances(80, levels=10))
    half = wide[::2, ::2]
    np.testing.assert_array_equal(
        implementation.dbscan(half, 0.3, 3).cpu().numpy(), sklearn_labels(half.contiguous(), 0.3, 3)
    )


def test_a_long_chain_is_one_cluster(implementation: ModuleType, backend: Backend) -> None:
    # The worst case of label propagation: neighbours of neighbours of neighbours, in shuffled order.
    order = torch.randperm(2000, generator=torch.Generator().manual_seed(0))
    place = torch.empty(2000)
    place[order] = torch.arange(2000.0)
    distances = (place[:, None] - place[None, :]).abs()
    assert (implementation.dbscan(backend(distances), 1.0, 3) == 0).all()
    assert (implementation.dbscan(backend(to_csr(distances, distances <= 1)), 1.0, 3) == 0).all()


@given(
    points=st.lists(st.integers(0, 30), min_size=1, max_size=40),
    eps=st.integers(0, 4),
    min_samples=st.integers(1, 6),
    stored=st.integers(0, 8),
)
def test_property_integer_points_on_a_line_agree_with_scikit_learn(
    implementation: ModuleType, backend: Backend, points: list[int], eps: int, min_samples: int, stored: int
) -> None:
    line = torch.tensor(points).float()
    distances = (line[:, None] - line[None, :]).abs()
    assert_labels(implementation, backend(distances), float(eps), min_samples)
    assert_labels(implementation, backend(to_csr(distances, distances <= stored)), float(eps), min_samples)
