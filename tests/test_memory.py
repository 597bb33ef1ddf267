"""cluster_centroids and update_memory_."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import Backend
from hypothesis import given
from hypothesis import strategies as st
from sample_inputs import batches, clustered, memory_batch
from torch import Tensor

import ccfast

MODES = ["sequential", "hardest", "mean", "last"]
GROUP_MODES = ["group_first", "group_hardest", "group_mean", "group_harmonic"]
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-13}


def unit(row: Tensor) -> Tensor:
    return row / row.norm().clamp_min(1e-12)


def inner(a: Tensor, b: Tensor) -> float:
    return float(a @ b)


def mean_of(rows: list[Tensor]) -> Tensor:
    return torch.stack(rows).mean(0)


def chosen(mode: str, samples: list[Tensor], groups: list[int], row: Tensor, reference: Tensor) -> list[Tensor]:
    """The rows that the rule mixes into the row of a cluster, in this order."""
    parts = [[x for x, g in zip(samples, groups, strict=True) if g == group] for group in dict.fromkeys(groups)]

    def least(candidates: list[Tensor], other: Tensor) -> Tensor:
        products = [inner(x, other) for x in candidates]
        return candidates[products.index(min(products))]

    def harmonic(x: Tensor, part: list[Tensor]) -> float:
        a, b = 1 - inner(x, row), 1 + inner(x, unit(mean_of(part)))
        return a * b / (a + b) if a + b else 0.0

    if mode == "group_harmonic":
        scores = [(harmonic(x, part), x) for part in parts for x in part]
        return [next(x for score, x in scores if score == max(score for score, _ in scores))]
    return {
        "sequential": lambda: samples,
        "hardest": lambda: [least(samples, reference)],
        "mean": lambda: [mean_of(samples)],
        "last": lambda: samples[-1:],
        "group_first": lambda: [part[0] for part in parts],
        "group_hardest": lambda: [least(part, row) for part in parts],
        "group_mean": lambda: [least([unit(mean_of(part)) for part in parts], row)],
    }[mode]()


def literal_update(
    memory: Tensor,
    features: Tensor,
    labels: Tensor,
    momentum: float,
    mode: str,
    *,
    reference: Tensor | None = None,
    groups: Tensor | None = None,
) -> Tensor:
    """The definition in float64, one cluster after another."""
    rows = memory.double().cpu().clone()
    measured = rows if reference is None else reference.double().cpu()
    batch = list(zip(features.double().cpu(), labels.tolist(), strict=True))
    cameras = [0] * len(batch) if groups is None else groups.tolist()
    for label in {label for _, label in batch if label >= 0}:
        samples = [x for x, y in batch if y == label]
        of_samples = [camera for camera, (_, y) in zip(cameras, batch, strict=True) if y == label]
        for x in chosen(mode, samples, of_samples, rows[label], measured[label]):
            rows[label] = unit(momentum * rows[label] + (1 - momentum) * x)
    return rows


def assert_update(
    module: ModuleType,
    memory: Tensor,
    features: Tensor,
    labels: Tensor,
    momentum: float,
    mode: str,
    **extras: Tensor,
) -> None:
    want = literal_update(memory, features, labels, momentum, mode, **extras)
    assert module.update_memory_(memory, features, labels, momentum, mode, **extras) is None
    torch.testing.assert_close(memory.double().cpu(), want, rtol=0, atol=TOLERANCE[memory.dtype])


def cameras_of(labels: Tensor, cameras: int = 4, seed: int = 3) -> Tensor:
    """One camera per sample, unsorted; numbers need not start at 0."""
    drawn = torch.randint(cameras, labels.shape, generator=torch.Generator().manual_seed(seed))
    return (7 * drawn - 9).to(labels.device)


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
    """The same values, contiguous, at an address that is not a multiple of 16 bytes."""
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
def test_memory_is_unchanged_after_an_error(
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
    # A float32 sum would lose each of the thousand small values next to the large one.
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("momentum", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("mode", GROUP_MODES)
def test_update_by_groups_follows_the_rules(
    implementation: ModuleType, backend: Backend, mode: str, momentum: float, dtype: torch.dtype
) -> None:
    memory, features, labels = backend(*memory_batch(dtype=dtype))
    assert_update(implementation, memory, features, labels, momentum, mode, groups=cameras_of(labels))


@pytest.mark.parametrize("cameras", [1, 2, 50])
@pytest.mark.parametrize("clusters, dim, batch", [(1, 2, 1), (1, 3, 40), (5, 2052, 33), (3, 37, 620)])
@pytest.mark.parametrize("mode", GROUP_MODES)
def test_update_by_groups_of_any_shape(
    implementation: ModuleType, backend: Backend, mode: str, clusters: int, dim: int, batch: int, cameras: int
) -> None:
    memory, features, labels = backend(*memory_batch(clusters, dim, batch))
    memory *= 1.5  # the authors' first rows need not be of unit norm
    assert_update(implementation, memory, features, labels, 0.2, mode, groups=cameras_of(labels, cameras))


@given(batch=batches(), momentum=st.sampled_from([0.25, 0.5]), mode=st.sampled_from(GROUP_MODES))
def test_property_groups_with_tied_products(
    implementation: ModuleType, backend: Backend, batch: tuple[Tensor, Tensor, Tensor], momentum: float, mode: str
) -> None:
    # Rows of +-1/4: similarities are exact, and so are ties; the first candidate counts.
    memory, features, labels = backend(*batch)
    if mode in ("group_mean", "group_harmonic"):  # normalised means are not exact, so every sample is a separate group
        groups = torch.arange(len(labels), device=labels.device)
    else:
        groups = cameras_of(labels, 3)
    assert_update(implementation, memory.clone(), features, labels, momentum, mode, groups=groups)


@pytest.mark.parametrize("clusters, dim, batch", [(12, 48, 64), (5, 2052, 33), (40, 128, 600)])
def test_hardest_may_be_measured_against_another_memory(
    implementation: ModuleType, backend: Backend, clusters: int, dim: int, batch: int
) -> None:
    memory, features, labels = backend(*memory_batch(clusters, dim, batch))
    reference = backend(memory_batch(clusters, dim, batch, seed=5)[0])
    assert_update(implementation, memory.clone(), features, labels, 0.3, "hardest", reference=reference)
    old, alone = memory.clone(), memory.clone()
    implementation.update_memory_(memory, features, labels, 0.3, "hardest", reference=old)
    implementation.update_memory_(alone, features, labels, 0.3, "hardest")
    assert torch.equal(memory, alone)


@pytest.mark.parametrize("clusters, dim, batch", [(12, 48, 64), (5, 2052, 33), (2, 12, 700)])
def test_replace_writes_the_last_sample_of_each_cluster(
    implementation: ModuleType, backend: Backend, clusters: int, dim: int, batch: int
) -> None:
    memory, features, labels = memory_batch(clusters, dim, batch)
    memory[0] = torch.nan  # any values of an empty row
    memory, features, labels = backend(memory, features, labels)
    want = memory.clone()
    for i, label in enumerate(labels.tolist()):
        if label >= 0:
            want[label] = features[i]
    implementation.update_memory_(memory, features, labels, mode="replace")
    torch.testing.assert_close(memory, want, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    "options, word",
    [
        ({"mode": "mean", "reference": True}, "reference"),
        ({"mode": "group_first"}, "groups"),
        ({"mode": "hardest", "groups": True}, "groups"),
        ({"mode": "hardest", "reference": "short"}, "reference"),
        ({"mode": "group_mean", "groups": "short"}, "groups"),
        ({"mode": "softest"}, "mode"),
    ],
)
def test_what_a_mode_has_no_use_for_is_refused(
    implementation: ModuleType, backend: Backend, options: dict[str, Any], word: str
) -> None:
    memory, features, labels = backend(*memory_batch())
    extras = {"reference": memory.clone(), "groups": labels}
    given = {
        key: value if key == "mode" else extras[key][: 5 if value == "short" else None]
        for key, value in options.items()
    }
    before = memory.clone()
    with pytest.raises(ValueError, match=f"^{word}"):
        implementation.update_memory_(memory, features, labels, **given)
    assert torch.equal(memory, before)


ALIASES = {
    "the memory itself": lambda memory: memory,
    "rows of it": lambda memory: memory[3:9],
    "every other row": lambda memory: memory[::2],
    "one row again and again": lambda memory: memory[5:6].expand(7, -1),
    "through another storage": lambda memory: torch.from_numpy(memory.numpy())[1:],
}


@pytest.mark.parametrize("name", ALIASES)
@pytest.mark.parametrize("mode", [*MODES, "replace", *GROUP_MODES])
def test_features_that_share_memory_are_read_as_they_were(
    implementation: ModuleType, backend: Backend, mode: str, name: str
) -> None:
    if name == "through another storage" and backend.device.type != "cpu":
        pytest.skip("NumPy sees host memory alone")
    memory = backend(memory_batch(clusters=12, dim=48)[0])
    shared = ALIASES[name](memory)
    labels = torch.arange(len(shared), device=memory.device).add(1) % 5
    extras = {"groups": cameras_of(labels, 2)} if mode in GROUP_MODES else {}
    want = memory.clone()
    implementation.update_memory_(want, shared.clone(), labels, 0.3, mode, **extras)
    implementation.update_memory_(memory, shared, labels, 0.3, mode, **extras)
    assert torch.equal(memory, want)


def test_labels_and_reference_that_share_memory_are_read_as_they_were(
    implementation: ModuleType, backend: Backend
) -> None:
    rows, features, _ = backend(*memory_batch(clusters=12, dim=48, batch=6, dtype=torch.float64))
    labels = rows.view(torch.int64)[4, :6]  # the bits of a row of the memory
    labels.copy_(torch.tensor([4, 4, 4, 1, 4, 0]))
    want = rows.clone()
    implementation.update_memory_(want, features, labels.clone(), 0.5, "hardest", reference=rows.clone())
    implementation.update_memory_(rows, features, labels, 0.5, "hardest", reference=rows)
    assert torch.equal(rows, want)


@pytest.mark.parametrize("threads", [2, 8])
def test_shared_features_give_the_bits_of_one_thread(backend: Backend, threads: int) -> None:
    rows = F.normalize(torch.randn(3000, 64, generator=torch.Generator().manual_seed(0)), dim=1)
    labels = torch.randperm(3000, generator=torch.Generator().manual_seed(1))
    results, before = [], torch.get_num_threads()
    for count in (1, threads):
        torch.set_num_threads(count)
        memory = backend(rows.clone())
        ccfast.update_memory_(memory, memory, backend(labels))
        results.append(memory)
    torch.set_num_threads(before)
    assert torch.equal(*results)


@pytest.mark.parametrize(
    "memory",
    [
        lambda: torch.ones(1, 8).expand(4, 8),
        lambda: torch.ones(4, 1).expand(4, 8),
        lambda: torch.ones(20).as_strided((4, 8), (3, 1)),
        lambda: torch.ones(60).as_strided((4, 8), (6, 4)),
        lambda: torch.ones(1).expand(4, 8),
    ],
)
def test_a_memory_that_overlaps_itself_is_refused(implementation: ModuleType, backend: Backend, memory: Any) -> None:
    features, labels = backend(F.normalize(torch.ones(3, 8), dim=1), torch.zeros(3, dtype=torch.int64))
    if backend.device.type != "cpu":
        pytest.skip("made on the CPU")
    with pytest.raises(ValueError, match=r"^memory: expected elements that do not overlap in memory"):
        implementation.update_memory_(memory(), features, labels)


@pytest.mark.parametrize("strides", [(1, 4), (9, 1), (2, 9), (3, 16)])
def test_a_strided_memory_without_overlap_is_taken(
    implementation: ModuleType, backend: Backend, strides: tuple[int, int]
) -> None:
    memory, features, labels = backend(*memory_batch(clusters=4, dim=8))
    view = torch.zeros(200, device=memory.device).as_strided((4, 8), strides)
    view.copy_(memory)
    assert_update(implementation, view, features, labels, 0.2, "sequential")


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", ["memory", "reference"])
def test_rows_that_are_not_finite_are_refused_by_name(
    implementation: ModuleType, backend: Backend, name: str, value: float
) -> None:
    if backend.name != "cpu":
        pytest.skip("nothing waits for the device: data is not looked at there")
    memory, features, labels = memory_batch()
    reference = memory.clone()
    row = int(labels[labels >= 0][0])
    {"memory": memory, "reference": reference}[name][row, 3] = value
    before = memory.clone()
    with pytest.raises(ValueError, match=f"^{name}: expected finite values, got a non-finite value in row {row}"):
        implementation.update_memory_(memory, features, labels, 0.1, "hardest", reference=reference)
    torch.testing.assert_close(memory, before, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mode", MODES)
def test_rows_of_huge_norm_are_normalised(
    implementation: ModuleType, backend: Backend, mode: str, dtype: torch.dtype
) -> None:
    largest = 3e38 if dtype == torch.float32 else 1e200
    if dtype == torch.float64 and backend.name != "cpu" and implementation is ccfast:
        pytest.skip("squares beyond float64 are left to the CPU")
    memory, features, labels = backend(*memory_batch(clusters=6, dim=2050 if mode == "mean" else 40, dtype=dtype))
    memory = memory.sign() * largest  # finite, of a norm that float32 cannot hold
    want = F.normalize(memory.sign().double(), dim=1)
    implementation.update_memory_(memory, features, labels, 0.5, mode)
    present = labels[labels >= 0].unique()
    if mode == "sequential":  # the first sample is lost next to the row, the others are not
        torch.testing.assert_close(
            memory[present].double().norm(dim=1), torch.ones(len(present)).to(want), rtol=1e-6, atol=0
        )
    else:
        torch.testing.assert_close(memory[present].double(), want[present], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-45, 1e-30, 0.0])
@pytest.mark.parametrize("mode", MODES)
def test_tiny_and_zero_rows_take_the_sample(
    implementation: ModuleType, backend: Backend, mode: str, scale: float
) -> None:
    memory, features, labels = backend(*memory_batch(clusters=6, dim=40))
    memory *= scale
    assert_update(implementation, memory, features, labels, 0.5, mode)


@pytest.mark.parametrize("case", range(8))
def test_3c_updates_are_the_authors(implementation: ModuleType, backend: Backend, golden: Any, case: int) -> None:
    want = golden(f"methods/camera_update_{case}")
    mode = {
        "cm": "sequential",
        "cm_hard": "hardest",
        "cm_camera": "group_first",
        "cm_hard_camera": "group_hardest",
        "tccl_camera": "group_mean",
        "hd_camera": "group_harmonic",
    }[str(want["mode"])]
    memory = backend(torch.from_numpy(want["memory"]))
    for step, after in enumerate(want["memory_after"]):
        features = F.normalize(backend(torch.from_numpy(want["inputs"][step])), dim=1)
        labels, cameras = (backend(torch.from_numpy(want[name][step])) for name in ("targets", "cameras"))
        extras = {"groups": cameras} if mode in GROUP_MODES else {}
        implementation.update_memory_(memory, features, labels, float(want["momentum"]), mode, **extras)
        atol = 1e-6 if memory.dtype == torch.float32 else 1e-12
        torch.testing.assert_close(memory.cpu(), torch.from_numpy(after), rtol=0, atol=atol)


@pytest.mark.parametrize("case", range(3))
def test_instance_discrimination_is_the_authors(
    implementation: ModuleType, backend: Backend, golden: Any, case: int
) -> None:
    want = golden(f"methods/npid_{case}")
    memory = backend(torch.from_numpy(want["memory"]))
    tolerance = 1e-6 if memory.dtype == torch.float32 else 1e-12
    for step, after in enumerate(want["memory_after"]):
        features, rows = (backend(torch.from_numpy(want[name][step])) for name in ("inputs", "indexes"))
        features.requires_grad_()
        loss = implementation.centroid_contrastive_loss(
            features, memory, rows, float(want["temperature"]), normalize=False
        )
        loss.backward()
        assert abs(loss.item() - want["loss"][step]) <= 2 * tolerance + 10 * tolerance * abs(want["loss"][step])
        torch.testing.assert_close(
            features.grad.cpu(), torch.from_numpy(want["grad"][step]), rtol=0, atol=7 * tolerance
        )
        implementation.update_memory_(memory, features, rows, float(want["momentum"]), "last")
        torch.testing.assert_close(memory.cpu(), torch.from_numpy(after), rtol=0, atol=tolerance)
