"""What users hand over besides plain tensors, and where: NumPy arrays, DLPack, parameters, inference mode, autocast."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
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
    """A tensor of another library: nothing but the DLPack protocol."""

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
