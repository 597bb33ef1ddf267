"""Inputs other than plain tensors, and special contexts: NumPy arrays, DLPack, parameters, inference mode, autocast."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from sample_inputs import clustered, memory_batch, retrieval_case, symmetric_distances

import ccfast

FEATURES, IDS = clustered(60, dim=16, identities=6)
MEMORY, BATCH, LABELS = memory_batch(clusters=5, dim=16, batch=20)
CALLS: dict[str, tuple[Any, ...]] = {
    "knn": (FEATURES, 5),
    "k_reciprocal_encoding": (FEATURES, 10, 3),
    "jaccard_distance": (FEATURES, 10, 3),
    "dbscan": (symmetric_distances(), 0.3, 3),
    "infomap": (FEATURES,),
    "cluster_centroids": (FEATURES, IDS),
    "centroid_contrastive_loss": (BATCH, MEMORY, LABELS),
    "k_reciprocal_rerank": (FEATURES[:20], FEATURES[20:], 10, 3),
    "evaluate_ranking": retrieval_case(),
}


class Foreign:
    """A tensor of another library that has only the DLPack protocol."""

    def __init__(self, value: torch.Tensor) -> None:
        self._value = value

    def __dlpack__(self, **options: Any) -> Any:
        return self._value.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._value.__dlpack_device__()


def flat(result: Any) -> list[torch.Tensor]:
    parts = result if isinstance(result, tuple) else (result,)
    tensors = [part if isinstance(part, torch.Tensor) else torch.tensor(part) for part in parts]
    return [part.to_dense() if part.layout is torch.sparse_csr else part for part in tensors]


@pytest.mark.parametrize("wrap", [torch.Tensor.numpy, Foreign], ids=["numpy", "DLPack"])
@pytest.mark.parametrize("op", CALLS)
def test_foreign_arrays_give_the_result_of_tensors(implementation: ModuleType, op: str, wrap: Any) -> None:
    if op == "infomap":
        pytest.importorskip("infomap")
    function = getattr(implementation, op)
    found = function(*(wrap(value) if isinstance(value, torch.Tensor) else value for value in CALLS[op]))
    for ours, theirs in zip(flat(found), flat(function(*CALLS[op])), strict=True):
        assert torch.equal(ours, theirs)


def test_numpy_batches_update_a_tensor_memory_and_are_not_written_to(implementation: ModuleType) -> None:
    memory, features, labels = MEMORY.clone(), BATCH.numpy(), LABELS.numpy()
    before = features.copy()
    implementation.update_memory_(memory, features, labels)
    want = MEMORY.clone()
    implementation.update_memory_(want, BATCH, LABELS)
    assert torch.equal(memory, want) and np.array_equal(features, before)


def test_numpy_scalars_are_numbers(implementation: ModuleType) -> None:
    found = implementation.jaccard_distance(FEATURES, np.int64(10), np.int32(3), max_distance=np.float32(0.5))
    want = implementation.jaccard_distance(FEATURES, 10, 3, max_distance=0.5)
    assert torch.equal(found.values(), want.values())
    assert torch.equal(implementation.dbscan(found, np.float64(0.5), np.int64(3)), implementation.dbscan(want, 0.5, 3))


def test_numpy_arrays_of_the_wrong_dtype_are_refused_by_name(implementation: ModuleType) -> None:
    with pytest.raises(TypeError, match=r"features.*float64"):
        implementation.jaccard_distance(FEATURES.numpy().astype(np.float64), 10, 3)


def test_parameters_are_tensors(implementation: ModuleType) -> None:
    memory = torch.nn.Parameter(MEMORY.clone())
    loss = implementation.centroid_contrastive_loss(torch.nn.Parameter(BATCH), memory, LABELS)
    loss.backward()
    assert memory.grad is not None
    implementation.update_memory_(memory, BATCH, LABELS)
    assert not torch.equal(memory.detach(), MEMORY)


@pytest.mark.slow
@pytest.mark.parametrize("context", [torch.inference_mode, lambda: torch.autocast("cpu", dtype=torch.bfloat16)])
@pytest.mark.parametrize("op", [op for op in CALLS if op != "evaluate_ranking"])
def test_inference_mode_and_autocast_change_no_result(implementation: ModuleType, op: str, context: Any) -> None:
    if op == "infomap":
        pytest.importorskip("infomap")
    function = getattr(implementation, op)
    want = flat(function(*CALLS[op]))
    with context():
        found = flat(function(*CALLS[op]))
    for ours, theirs in zip(found, want, strict=True):
        assert ours.dtype == theirs.dtype and torch.equal(ours, theirs)


def test_gradients_of_the_loss_under_autocast_are_those_without(implementation: ModuleType) -> None:
    gradients = []
    for enabled in (False, True):
        features, memory = BATCH.clone().requires_grad_(), MEMORY.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss = implementation.centroid_contrastive_loss(features, memory, LABELS)
        loss.backward()
        gradients.append((features.grad, memory.grad))
    assert all(torch.equal(without, under) for without, under in zip(*gradients, strict=True))


def test_to_scipy_shares_the_memory_of_a_sparse_result() -> None:
    sparse = ccfast.jaccard_distance(FEATURES, 10, 3, max_distance=0.7)
    found = ccfast.to_scipy(sparse)
    assert found.format == "csr" and found.shape == (60, 60) and found.dtype == np.float32
    np.testing.assert_array_equal(found.toarray(), sparse.to_dense().numpy())
    found.data[0] = 7
    assert sparse.values()[0] == 7
    assert found.indices.dtype == found.indptr.dtype == np.int64
    assert (found @ np.ones(60, np.float32)).shape == (60,)


SCIPY = [getattr(scipy.sparse, f"{name}_{kind}") for name in ("csr", "csc", "coo") for kind in ("matrix", "array")]


def stored(distances: torch.Tensor, make: Any, dtype: str = "f4") -> Any:
    """The distances up to 0.3 as a SciPy matrix, including zeros."""
    rows, columns = torch.nonzero(distances <= 0.3, as_tuple=True)
    values = distances[rows, columns].numpy().astype(dtype)
    return make(scipy.sparse.coo_matrix((values, (rows.numpy(), columns.numpy())), shape=distances.shape))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("make", SCIPY)
def test_dbscan_takes_scipy_matrices_as_they_are(implementation: ModuleType, make: Any, dtype: str) -> None:
    distances = symmetric_distances(levels=20)
    matrix = stored(distances, make, dtype)
    assert (matrix.data == 0).sum() > 60, "zeros are stored"
    before = [part.copy() for part in (matrix.data, matrix.tocsr().indices)]
    assert torch.equal(implementation.dbscan(matrix, 0.25, 3), implementation.dbscan(distances, 0.25, 3))
    assert all(np.array_equal(a, b) for a, b in zip(before, (matrix.data, matrix.tocsr().indices), strict=True))


@pytest.mark.parametrize("layout", ["coo", "csc", "csr"])
def test_dbscan_takes_sparse_tensors_of_other_layouts(implementation: ModuleType, layout: str) -> None:
    distances = symmetric_distances(levels=20)
    coo = torch.sparse_coo_tensor(torch.nonzero(distances <= 0.3).T, distances[distances <= 0.3], distances.shape)
    sparse = coo if layout == "coo" else getattr(coo, f"to_sparse_{layout}")()
    assert torch.equal(implementation.dbscan(sparse, 0.25, 3), implementation.dbscan(distances, 0.25, 3))


def test_entries_that_are_stored_twice_are_added_up(implementation: ModuleType) -> None:
    rows, columns, values = [0, 1, 0, 1, 2, 3], [1, 0, 1, 0, 3, 2], [0.2, 0.2, 0.2, 0.2, 0.3, 0.3]
    coo = scipy.sparse.coo_matrix((np.array(values, "f4"), (rows, columns)), shape=(4, 4))
    unsorted = scipy.sparse.csr_matrix(
        (np.array(values, "f4"), np.array([1, 1, 0, 0, 3, 2]), np.array([0, 2, 4, 5, 6])), shape=(4, 4)
    )
    unsorted.data[:] = [0.2, 0.2, 0.2, 0.2, 0.3, 0.3]
    tensor = torch.sparse_coo_tensor(torch.tensor([rows, columns]), torch.tensor(values), (4, 4))
    for matrix in (coo, unsorted, tensor):
        assert implementation.dbscan(matrix, 0.35, 2).tolist() == [-1, -1, 0, 0]
        assert implementation.dbscan(matrix, 0.45, 2).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("make", SCIPY)
def test_from_scipy_is_the_way_back(make: Any) -> None:
    sparse = ccfast.jaccard_distance(FEATURES, 10, 3, max_distance=0.7)
    again = ccfast.from_scipy(make(ccfast.to_scipy(sparse)))
    assert again.layout is torch.sparse_csr and again.dtype is torch.float32
    for part in ("crow_indices", "col_indices", "values"):
        assert getattr(again, part)().dtype == getattr(sparse, part)().dtype
        assert torch.equal(getattr(again, part)(), getattr(sparse, part)())


def test_from_scipy_shares_the_memory_of_values_and_takes_what_cannot_be_written_to() -> None:
    matrix = ccfast.to_scipy(ccfast.jaccard_distance(FEATURES, 10, 3, max_distance=0.7))
    tensor = ccfast.from_scipy(matrix)
    tensor.values()[0] = 7
    assert matrix.data[0] == 7
    matrix.data.flags.writeable = False
    assert torch.equal(ccfast.from_scipy(matrix).values(), tensor.values())
    wide = scipy.sparse.random(3, 9, density=0.5, format="csr", dtype=np.float64)
    np.testing.assert_array_equal(ccfast.from_scipy(wide).to_dense().numpy(), wide.toarray())


@pytest.mark.parametrize(
    "value, word",
    [(np.eye(3), "ndarray"), (scipy.sparse.eye(3), "dia"), (scipy.sparse.eye(3, dtype=int).tocsr(), "int")],
)
def test_from_scipy_refuses_other_things(value: Any, word: str) -> None:
    with pytest.raises(TypeError, match=f"matrix: expected .*{word}"):
        ccfast.from_scipy(value)
    with pytest.raises(TypeError, match="matrix: expected a CuPy sparse matrix, got"):
        ccfast.from_cupy(value)


class FakeCupy(scipy.sparse.csr_matrix):
    """Represents a CuPy matrix: the same attributes, whose arrays have the DLPack protocol."""


FakeCupy.__module__ = "cupyx.scipy.sparse._csr"


def test_dbscan_takes_cupy_matrices(implementation: ModuleType) -> None:
    distances = symmetric_distances(levels=20)
    matrix = FakeCupy(stored(distances, scipy.sparse.csr_matrix))
    assert torch.equal(implementation.dbscan(matrix, 0.25, 3), implementation.dbscan(distances, 0.25, 3))
    assert torch.equal(ccfast.from_cupy(matrix).values(), torch.from_numpy(matrix.data))


@pytest.mark.cuda
def test_from_cupy_is_the_way_back() -> None:
    pytest.importorskip("cupy")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    sparse = ccfast.jaccard_distance(FEATURES.cuda(), 10, 3, max_distance=0.7)
    again = ccfast.from_cupy(ccfast.to_cupy(sparse))
    assert again.device == sparse.device and torch.equal(again.to_dense(), sparse.to_dense())
    assert torch.equal(ccfast.dbscan(ccfast.to_cupy(sparse), 0.6), ccfast.dbscan(sparse, 0.6))


INTEGERS: dict[str, Any] = {
    "list": torch.Tensor.tolist,
    "tuple": lambda value: tuple(value.tolist()),
    "list of NumPy numbers": lambda value: list(value.numpy()),
    "list of tensors": list,
    **{
        f"{kind}{bits}": lambda value, name=f"{kind}{bits}": value.numpy().astype(name)
        for kind in ("int", "uint")
        for bits in (8, 16, 32, 64)
    },
    **{f"torch uint{bits}": lambda value, bits=bits: value.to(getattr(torch, f"uint{bits}")) for bits in (16, 32, 64)},
}


@pytest.mark.parametrize("wrap", INTEGERS)
@pytest.mark.parametrize("op", ["cluster_centroids", "centroid_contrastive_loss", "evaluate_ranking", "update_memory_"])
def test_integers_of_any_kind_are_integers(implementation: ModuleType, op: str, wrap: str) -> None:
    arguments = (MEMORY, BATCH, LABELS) if op == "update_memory_" else CALLS[op]
    arguments = [
        value.clamp_min(0) if isinstance(value, torch.Tensor) and value.dtype == torch.int64 else value
        for value in arguments
    ]

    def call(change: Any) -> list[torch.Tensor]:
        given = [change(value) if getattr(value, "dtype", None) == torch.int64 else value for value in arguments]
        if op != "update_memory_":
            return flat(getattr(implementation, op)(*given))
        memory = given[0].clone()
        implementation.update_memory_(memory, *given[1:])
        return [memory]

    for found, want in zip(call(INTEGERS[wrap]), call(lambda value: value), strict=True):
        assert torch.equal(found, want)


def test_a_range_is_a_list_of_integers(implementation: ModuleType) -> None:
    distances = torch.rand(4, 4, generator=torch.Generator().manual_seed(0))
    found = implementation.evaluate_ranking(distances, range(4), range(4))
    assert found.mAP == implementation.evaluate_ranking(distances, torch.arange(4), torch.arange(4)).mAP


@pytest.mark.parametrize("convert", [ccfast.to_scipy, pytest.param(ccfast.to_cupy, marks=pytest.mark.cuda)])
def test_conversions_refuse_what_is_not_sparse_csr(convert: Any) -> None:
    if convert is ccfast.to_cupy:
        pytest.importorskip("cupy")
    for value, word in [(FEATURES, "strided"), (FEATURES.to_sparse_coo(), "sparse_coo"), (FEATURES.numpy(), "ndarray")]:
        with pytest.raises(TypeError, match=f"csr.*{word}"):
            convert(value)


@pytest.mark.cuda
def test_to_cupy_gives_the_matrix_of_a_sparse_result() -> None:
    pytest.importorskip("cupy")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    sparse = ccfast.jaccard_distance(FEATURES, 10, 3, max_distance=0.7).cuda()
    np.testing.assert_array_equal(ccfast.to_cupy(sparse).toarray().get(), sparse.to_dense().cpu().numpy())
    with pytest.raises(ValueError, match=r"csr.*cpu"):
        ccfast.to_cupy(sparse.cpu())


def test_missing_cupy_is_an_import_error_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(ImportError, match=r"ccfast\[cuda12\]"):
        ccfast.to_cupy(ccfast.jaccard_distance(FEATURES, 10, 3, max_distance=0.7))
