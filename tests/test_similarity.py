"""memory_similarity and segment_mean: products with a bank, and their means per label."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

import hypothesis
import pytest
import torch
from conftest import Backend
from hypothesis import strategies as st
from sample_inputs import memory_batch
from torch import Tensor


def test_similarity_is_the_product_and_its_gradient(implementation: Any, backend: Backend) -> None:
    features, memory = backend(torch.randn(5, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64))
    features.requires_grad_(), memory.requires_grad_()
    torch.testing.assert_close(implementation.memory_similarity(features, memory), features @ memory.T)
    seen: list[Tensor] = []
    for callback in (None, seen.append):
        product = functools.partial(implementation.memory_similarity, on_backward=callback)
        assert torch.autograd.gradcheck(product, (features, memory))
    assert seen and torch.equal(seen[0], features) and not seen[0].requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_similarity_of_half_features_is_float32(implementation: Any, backend: Backend, dtype: torch.dtype) -> None:
    memory, features, _ = backend(*memory_batch(clusters=5, dim=8, batch=6))
    features = features.to(dtype).requires_grad_()
    with torch.autocast(backend.device.type, dtype=torch.bfloat16):
        found = implementation.memory_similarity(features, memory, lambda _: None)
        found.sum().backward()
    assert found.dtype == torch.float32 and features.grad.dtype == dtype
    torch.testing.assert_close(found, features.detach().float() @ memory.T, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        ((torch.rand(2, 3), torch.rand(2, 4)), ValueError, "the same number of columns"),
        ((torch.rand(2), torch.rand(2, 4)), ValueError, r"features: expected 2 dimension"),
        ((torch.ones(2, 3, dtype=torch.int64), torch.rand(2, 3)), TypeError, "features: expected dtype"),
        ((torch.rand(2, 3), torch.rand(2, 3), 7), TypeError, "on_backward: expected a function, got 7"),
    ],
)
def test_similarity_refuses_what_it_cannot_use(implementation: Any, arguments: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        implementation.memory_similarity(*arguments)


def means_by_loops(similarities: Tensor, labels: Tensor, segments: int) -> tuple[Tensor, Tensor]:
    """Column by column, in float64."""
    sums = torch.zeros(len(similarities), segments, dtype=torch.float64)
    counts = torch.zeros(segments)
    for column, label in zip(similarities.double().T, labels.tolist(), strict=True):
        if label != -1:
            sums[:, label] += column
            counts[label] += 1
    return sums / counts.clamp_min(1), counts > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rows, columns, segments", [(1, 1, 1), (3, 37, 5), (33, 301, 97), (2, 600, 2)])
def test_means_are_those_of_a_loop(
    implementation: ModuleType, backend: Backend, dtype: torch.dtype, rows: int, columns: int, segments: int
) -> None:
    generator = torch.Generator().manual_seed(rows)
    similarities = torch.randn(rows, columns, generator=generator).to(dtype)
    labels = torch.randint(-1, segments, (columns,), generator=generator)
    means, present = implementation.segment_mean(*backend(similarities, labels), segments)
    want, has = means_by_loops(similarities, labels, segments)
    assert means.dtype == (torch.float64 if dtype is torch.float64 else torch.float32)
    torch.testing.assert_close(means.cpu().double(), want, rtol=1e-6, atol=1e-7)
    assert torch.equal(present.cpu(), has)


@hypothesis.given(
    labels=st.lists(st.integers(-1, 6), min_size=1, max_size=40), rows=st.integers(1, 5), seed=st.integers(0, 99)
)
def test_mean_of_a_product_is_the_product_with_the_mean(
    backend: Backend, implementation: ModuleType, labels: list[int], rows: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, bank = (torch.randn(n, 8, dtype=torch.float64, generator=generator) for n in (rows, len(labels)))
    columns = torch.tensor(labels)
    means, present = implementation.segment_mean(*backend(x @ bank.T, columns), 7)
    for label in range(7):
        members = bank[columns == label]
        assert bool(present[label]) == (len(members) > 0)
        want = x @ members.mean(0) if len(members) else torch.zeros(rows, dtype=torch.float64)
        torch.testing.assert_close(means[:, label].cpu(), want, rtol=0, atol=1e-12)


def test_gradients_of_the_means(implementation: ModuleType, backend: Backend) -> None:
    similarities = backend(torch.randn(3, 9, dtype=torch.float64)).requires_grad_()
    labels = backend(torch.tensor([0, 2, 2, -1, 0, 3, 2, 0, -1]))

    def means(x: Tensor) -> Tensor:
        return implementation.segment_mean(x, labels, 5)[0]

    assert torch.autograd.gradcheck(means, similarities)
    assert torch.autograd.gradgradcheck(means, similarities)


def test_strided_similarities_and_narrow_labels(implementation: ModuleType, backend: Backend) -> None:
    similarities = backend(torch.randn(20, 6)).T
    labels = torch.arange(20) % 3
    found = implementation.segment_mean(similarities, backend(labels.to(torch.int8)), 3)[0]
    torch.testing.assert_close(found, implementation.segment_mean(similarities.contiguous(), backend(labels), 3)[0])


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        ((torch.rand(2, 3), torch.tensor([0, 1]), 2), ValueError, "labels: expected length 3"),
        ((torch.rand(2, 2), torch.tensor([0, 2]), 2), ValueError, "labels: expected labels in .0, 2."),
        ((torch.rand(2, 2), torch.tensor([0, -2]), 2), ValueError, "labels: expected labels in .0, 2."),
        ((torch.rand(2, 2), torch.tensor([0, 1]), 0), ValueError, "num_segments: expected at least 1"),
        ((torch.rand(2), torch.tensor([0, 1]), 2), ValueError, "similarities: expected 2 dimension"),
        ((torch.rand(2, 2), torch.rand(2), 2), TypeError, "labels: expected dtype"),
    ],
)
def test_means_refuse_what_they_cannot_use(
    implementation: ModuleType, backend: Backend, arguments: Any, error: Any, words: str
) -> None:
    if "labels in" in words and implementation.__name__ == "ccfast" and backend.name != "cpu":
        pytest.skip("the CUDA kernels do not wait for a look at the labels: such columns are left out")
    with pytest.raises(error, match=words):
        implementation.segment_mean(*arguments)


def test_cuda_kernels_leave_labels_out_of_range_out(backend: Backend) -> None:
    if backend.name == "cpu":
        pytest.skip("refused there")
    import ccfast

    similarities, labels = torch.randn(4, 6), torch.tensor([0, 5, 1, -7, 0, 1])
    found = ccfast.segment_mean(*backend(similarities, labels), 2)[0]
    want = means_by_loops(similarities, torch.where((labels < 0) | (labels > 1), -1, labels), 2)[0]
    torch.testing.assert_close(found.cpu().double(), want, rtol=1e-6, atol=1e-7)
