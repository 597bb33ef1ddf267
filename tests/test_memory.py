"""cluster_centroids and update_memory_."""

from __future__ import annotations

import math
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from conftest import Backend
from hypothesis import given
from hypothesis import strategies as st
from sample_inputs import batches, clustered, memory_batch
from torch import Tensor

import ccfast

MODES = ["sequential", "hardest", "mean"]
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-13}


def literal_update(memory: Tensor, features: Tensor, labels: Tensor, momentum: float, mode: str) -> Tensor:
    """The written rules in float64 on plain lists."""
    rows = memory.double().cpu().tolist()
    old = [row[:] for row in rows]
    batch = list(zip(features.double().cpu().tolist(), labels.tolist(), strict=True))

    def mix(row: list[float], x: list[float]) -> list[float]:
        mixed = [momentum * a + (1 - momentum) * b for a, b in zip(row, x, strict=True)]
        norm = max(math.sqrt(math.fsum(a * a for a in mixed)), 1e-12)
        return [a / norm for a in mixed]

    if mode == "sequential":
        for x, label in batch:
            if label >= 0:
                rows[label] = mix(rows[label], x)
    else:
        for label in {label for _, label in batch if label >= 0}:
            samples = [x for x, y in batch if y == label]
            if mode == "hardest":
                products = [math.fsum(a * b for a, b in zip(x, old[label], strict=True)) for x in samples]
                chosen = samples[products.index(min(products))]
            else:
                chosen = [math.fsum(column) / len(samples) for column in zip(*samples, strict=True)]
            rows[label] = mix(old[label], chosen)
    return torch.tensor(rows, dtype=torch.float64)


def assert_update(
    module: ModuleType, memory: Tensor, features: Tensor, labels: Tensor, momentum: float, mode: str
) -> None:
    want = literal_update(memory, features, labels, momentum, mode)
    assert module.update_memory_(memory, features, labels, momentum, mode) is None
    torch.testing.assert_close(memory.double().cpu(), want, rtol=0, atol=TOLERANCE[memory.dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("momentum", [0.0, 0.1, 0.9, 1.0])
@pytest.mark.parametrize("mode", MODES)
def test_update_follows_the_rules(
    implementation: ModuleType, backend: Backend, mode: str, momentum: float, dtype: torch.dtype
) -> None:
    memory, features, labels = backend(*memory_batch(dtype=dtype))
    assert_update(implementation, memory, features, labels, momentum, mode)


@pytest.mark.parametrize("clusters, dim, batch", [(1, 2, 1), (1, 3, 40), (300, 37, 5), (5, 2048, 33), (40, 128, 600)])
@pytest.mark.parametrize("mode", MODES)
def test_update_of_any_shape(
    implementation: ModuleType, backend: Backend, mode: str, clusters: int, dim: int, batch: int
) -> None:
    memory, features, labels = backend(*memory_batch(clusters, dim, batch))
    assert_update(implementation, memory, features, labels, 0.1, mode)


@pytest.mark.parametrize("mode", MODES)
def test_op_and_reference_agree(backend: Backend, mode: str) -> None:
    memory, features, labels = backend(*memory_batch(batch=256))
    want = memory.clone()
    ccfast.update_memory_(memory, features, labels, 0.1, mode)
    ccfast.reference.update_memory_(want, features, labels, 0.1, mode)
    torch.testing.assert_close(memory, want, rtol=0, atol=2e-6)


def test_sequential_applies_samples_in_batch_order(implementation: ModuleType, backend: Backend) -> None:
    memory, features = backend(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))
    labels = backend(torch.tensor([0, 0]))
    forward, backward = memory.clone(), memory.clone()
    implementation.update_memory_(forward, features, labels, 0.1)
    implementation.update_memory_(backward, features.flip(0), labels, 0.1)
    first = F.normalize(torch.tensor([0.1, 0.9]), dim=0)
    want = F.normalize(0.1 * first + 0.9 * torch.tensor([-1.0, 0.0]), dim=0)
    torch.testing.assert_close(forward[0].cpu(), want, rtol=0, atol=1e-6)
    assert backward[0, 1] > 0.9, "the last sample dominates at a small momentum"


def test_hardest_compares_with_the_row_before_the_update_and_takes_the_first_of_ties(
    implementation: ModuleType, backend: Backend
) -> None:
    memory = torch.tensor([[1.0, 0.0]])
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [0.6, 0.8]])
    memory, features, labels = backend(memory, features, torch.zeros(4, dtype=torch.int64))
    implementation.update_memory_(memory, features, labels, 0.5, "hardest")
    torch.testing.assert_close(memory[0].cpu(), torch.tensor([0.5, 0.5]) / 0.5**0.5, rtol=0, atol=1e-6)


def test_mean_is_not_normalised_before_mixing(implementation: ModuleType, backend: Backend) -> None:
    memory, features = backend(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8], [-0.6, 0.8]]))
    implementation.update_memory_(memory, features, backend(torch.zeros(2, dtype=torch.int64)), 0.5, "mean")
    want = F.normalize(torch.tensor([0.5, 0.4]), dim=0)
    torch.testing.assert_close(memory[0].cpu(), want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_rows_of_absent_clusters_stay_bitwise_and_noise_is_skipped(
    implementation: ModuleType, backend: Backend, mode: str
) -> None:
    memory, features, _ = backend(*memory_batch(clusters=6))
    memory *= 3  # not even normalised
    before = memory.clone()
    implementation.update_memory_(memory, features, backend(torch.full((64,), -1)), 0.1, mode)
    assert torch.equal(memory, before)
    labels = torch.full((64,), -1)
    labels[10] = 4
    implementation.update_memory_(memory, features, backend(labels), 0.1, mode)
    changed = (memory != before).any(1)
    assert changed.tolist() == [False, False, False, False, True, False]


@pytest.mark.parametrize("mode", MODES)
def test_opposite_vectors_never_make_nan(implementation: ModuleType, backend: Backend, mode: str) -> None:
    memory, features = backend(torch.eye(2, 4), -torch.eye(2, 4))
    implementation.update_memory_(memory, features, backend(torch.tensor([0, 1])), 0.5, mode)
    assert torch.equal(memory, torch.zeros_like(memory))


@pytest.mark.parametrize("mode", MODES)
def test_a_strided_memory_is_updated_in_place_and_nothing_around_it(
    implementation: ModuleType, backend: Backend, mode: str
) -> None:
    memory, features, labels = backend(*memory_batch())
    store = torch.full((24, 100), 7.0, device=backend.device)
    view = store[::2, 1:97:2]
    view.copy_(memory)
    assert_update(implementation, view, features, labels, 0.2, mode)
    untouched = torch.ones_like(store, dtype=torch.bool)
    untouched[::2, 1:97:2] = False
    assert (store[untouched] == 7).all()
    columns = memory.T.contiguous().T
    assert_update(implementation, columns, features.T.contiguous().T, labels, 0.2, mode)


def unaligned(value: Tensor) -> Tensor:
    """The same values, contiguous, at an address that is no multiple of 16 bytes."""
    store = torch.empty(value.numel() + 1, dtype=value.dtype, device=value.device)[1:].view(value.shape)
    return store.copy_(value)


@pytest.mark.parametrize("mode", MODES)
def test_update_of_tensors_that_begin_anywhere(implementation: ModuleType, backend: Backend, mode: str) -> None:
    memory, features, labels = backend(*memory_batch())
    assert_update(implementation, unaligned(memory), unaligned(features), labels, 0.1, mode)
    assert_update(implementation, memory[:, 1:].clone(), F.normalize(features[:, 1:], dim=1), labels, 0.1, mode)


@pytest.mark.parametrize("mode", MODES)
def test_update_of_a_cluster_with_more_samples_than_a_block_has_threads(
    implementation: ModuleType, backend: Backend, mode: str
) -> None:
    memory, features, _ = backend(*memory_batch(clusters=3, dim=20, batch=1100))
    assert_update(implementation, memory, features, backend(torch.ones(1100, dtype=torch.int64)), 0.9, mode)


@pytest.mark.parametrize("labels_dtype", [torch.int32, torch.int16, torch.int8])
def test_labels_of_any_integer_dtype(implementation: ModuleType, backend: Backend, labels_dtype: torch.dtype) -> None:
    memory, features, labels = backend(*memory_batch())
    assert_update(implementation, memory, features, labels.to(labels_dtype), 0.1, "sequential")


def test_parameters_and_graphs_are_updated_without_gradient(implementation: ModuleType, backend: Backend) -> None:
    memory, features, labels = backend(*memory_batch())
    want = memory.clone()
    implementation.update_memory_(want, features, labels)
    leaf = memory.requires_grad_()
    version = leaf._version
    implementation.update_memory_(leaf, features.requires_grad_(), labels)
    assert leaf.is_leaf and leaf.grad_fn is None and torch.equal(leaf.detach(), want)
    assert leaf._version > version, "autograd can tell that the memory changed"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fault", ["label", "norm", "nan"])
def test_memory_is_left_as_it_was_on_an_error(
    implementation: ModuleType, backend: Backend, mode: str, fault: str
) -> None:
    memory, features, labels = memory_batch()
    if fault == "label":
        labels[-1] = 12
    else:
        features[-1] *= 1.1 if fault == "norm" else torch.nan
    memory, features, labels = backend(memory, features, labels)
    before = memory.clone()
    if backend.name != "cpu":
        pytest.skip("no host synchronisation on the training path: data is not checked there")
    with pytest.raises(ValueError):
        implementation.update_memory_(memory, features, labels, 0.1, mode)
    assert torch.equal(memory, before)


@given(batch=batches(), momentum=st.sampled_from([0.0, 0.25, 0.5, 1.0]), mode=st.sampled_from(MODES))
def test_property_repeated_labels_and_tied_products(
    implementation: ModuleType, backend: Backend, batch: tuple[Tensor, Tensor, Tensor], momentum: float, mode: str
) -> None:
    memory, features, labels = backend(*batch)
    assert_update(implementation, memory.clone(), features, labels, momentum, mode)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_centroids_are_normalised_means(implementation: ModuleType, backend: Backend, dtype: torch.dtype) -> None:
    features, labels = clustered(200, identities=9)
    features[labels == 4] *= 5  # norms are free
    features, labels = backend(features.to(dtype), labels)
    labels[::7] = -1
    found = implementation.cluster_centroids(features, labels)
    assert found.dtype == dtype and found.device == backend.device and found.shape == (9, 64)
    want = torch.stack([F.normalize(features[labels == label].double().mean(0), dim=0) for label in range(9)])
    torch.testing.assert_close(found.double(), want, rtol=0, atol=1e-7 if dtype == torch.float32 else 1e-14)


def test_centroids_of_all_noise_are_empty(implementation: ModuleType, backend: Backend) -> None:
    features = backend(clustered(30, dim=8)[0])
    found = implementation.cluster_centroids(features, backend(torch.full((30,), -1)))
    assert found.shape == (0, 8) and found.dtype == torch.float32 and found.device == backend.device


def test_centroid_of_opposite_members_is_zero(implementation: ModuleType, backend: Backend) -> None:
    features, labels = backend(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 0, 1]))
    assert implementation.cluster_centroids(features, labels).tolist() == [[0, 0], [0, 1]]


@pytest.mark.parametrize("dim", [1, 5, 2048, 2051, 4100])
def test_centroids_of_any_length(implementation: ModuleType, backend: Backend, dim: int) -> None:
    features, labels = backend(*clustered(40, dim=dim, identities=3))
    found = implementation.cluster_centroids(unaligned(features), labels)
    want = torch.stack([F.normalize(features[labels == label].double().mean(0), dim=0) for label in range(3)])
    torch.testing.assert_close(found.double(), want, rtol=0, atol=1e-7)


@pytest.mark.parametrize("labels, missing", [([1, 1, 2], 0), ([0, 2, -1], 1), ([0, 1, 5], 2), ([-1, -1, 1], 0)])
def test_the_first_cluster_without_a_member_is_named(backend: Backend, labels: list[int], missing: int) -> None:
    with pytest.raises(ValueError, match=f"got none for {missing}$"):
        ccfast.cluster_centroids(backend(torch.eye(3)), backend(torch.tensor(labels)))


def test_centroids_of_features_whose_sum_overflows(implementation: ModuleType, backend: Backend) -> None:
    features = torch.full((4, 8), 1e38)
    found = implementation.cluster_centroids(backend(features), backend(torch.zeros(4, dtype=torch.int64)))
    torch.testing.assert_close(found.cpu(), torch.full((1, 8), 8**-0.5), rtol=1e-6, atol=0)


def test_centroids_of_strided_features(implementation: ModuleType, backend: Backend) -> None:
    features, labels = backend(*clustered(60, dim=20, identities=4))
    found = implementation.cluster_centroids(features[:, ::2], labels)
    torch.testing.assert_close(
        found, implementation.cluster_centroids(features[:, ::2].contiguous(), labels), rtol=0, atol=0
    )


def test_centroids_add_small_to_large_in_float64(implementation: ModuleType, backend: Backend) -> None:
    # In float32 the thousand small values would vanish one by one beside the large one.
    features = torch.full((1001, 2), 1.0)
    features[0] = torch.tensor([2.0**25, 0.0])
    found = implementation.cluster_centroids(backend(features), backend(torch.zeros(1001, dtype=torch.int64)))
    want = F.normalize(torch.tensor([[2.0**25 + 1000, 1000.0]], dtype=torch.float64)).float()
    torch.testing.assert_close(found.cpu(), want, rtol=1.2e-7, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_features_under_autocast_update_as_their_normalised_values(backend: Backend, dtype: torch.dtype) -> None:
    memory, features, labels = backend(*memory_batch())
    half = features.to(dtype)
    want = memory.clone()
    ccfast.update_memory_(want, torch.nn.functional.normalize(half.float(), dim=1), labels)
    with torch.autocast(backend.device.type, dtype):
        ccfast.update_memory_(memory, half, labels)
    torch.testing.assert_close(memory, want, rtol=0, atol=1e-6)
