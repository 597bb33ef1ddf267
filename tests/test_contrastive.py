"""centroid_contrastive_loss: torch's cross-entropy over similarities, value and gradients."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import Backend
from hypothesis import given
from hypothesis import strategies as st
from sample_inputs import batches
from torch import Tensor

import ccfast

Inputs = tuple[Tensor, Tensor, Tensor]


def batch(
    rows: int = 24, clusters: int = 10, dim: int = 32, dtype: torch.dtype = torch.float32, seed: int = 0
) -> Inputs:
    """Features of any norm, unit memory, labels with some -1."""
    generator = torch.Generator().manual_seed(seed)
    features = 3 * torch.randn(rows, dim, generator=generator, dtype=torch.float64)
    memory = F.normalize(torch.randn(clusters, dim, generator=generator, dtype=torch.float64), dim=1)
    labels = torch.randint(-1, clusters, (rows,), generator=generator)
    labels[0] = clusters - 1
    return features.to(dtype), memory.to(dtype), labels


def torch_loss(
    features: Tensor,
    memory: Tensor,
    labels: Tensor,
    temperature: float = 0.05,
    *,
    normalize: bool = True,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    ignore_index: int = -1,
) -> Tensor:
    """What users write today, in float64."""
    x = features.double()
    logits = (F.normalize(x, dim=1) if normalize else x) @ memory.double().T / temperature
    return F.cross_entropy(
        logits, labels, reduction=reduction, label_smoothing=label_smoothing, ignore_index=ignore_index
    )


def value_and_gradients(function: Any, inputs: Inputs, **options: Any) -> Inputs:
    features, memory = (value.detach().clone().requires_grad_() for value in inputs[:2])
    loss = function(features, memory, inputs[2], **options)
    # Unequal upstream gradients, so that a gradient which ignores them cannot pass.
    loss.backward(torch.linspace(0.5, 2, loss.numel(), device=loss.device, dtype=loss.dtype).reshape(loss.shape))
    return loss.detach(), features.grad, memory.grad


def assert_like_torch(module: ModuleType, inputs: Inputs, rtol: float, atol: float, **options: Any) -> None:
    found = value_and_gradients(module.centroid_contrastive_loss, inputs, **options)
    want = value_and_gradients(torch_loss, inputs, **options)
    assert found[0].dtype == (torch.float64 if inputs[0].dtype == torch.float64 else torch.float32)
    assert found[1].dtype == inputs[0].dtype and found[2].dtype == inputs[1].dtype
    for ours, theirs in zip(found, want, strict=True):
        assert ours.device == inputs[0].device
        scale = float(theirs.double().abs().max())
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=rtol, atol=atol * max(scale, 1e-30))


@pytest.mark.parametrize("case", range(4))
def test_loss_and_gradient_are_the_authors(
    implementation: ModuleType, backend: Backend, golden: Any, case: int
) -> None:
    want = golden(f"cluster_memory_{case}")
    memories = [want["memory"], *want["memory_after"][:-1]]
    for step, memory in enumerate(memories):
        features = backend(torch.from_numpy(want["inputs"][step])).requires_grad_()
        memory, labels = backend(torch.from_numpy(memory), torch.from_numpy(want["targets"][step]))
        loss = implementation.centroid_contrastive_loss(features, memory, labels, float(want["temperature"]))
        loss.backward()
        np.testing.assert_allclose(loss.item(), want["loss"][step], rtol=1e-5)
        largest = np.abs(want["grad"][step]).max()
        np.testing.assert_allclose(features.grad.cpu().numpy(), want["grad"][step], rtol=1e-5, atol=1e-5 * largest)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("normalize", [True, False])
def test_options_are_those_of_cross_entropy(
    implementation: ModuleType, backend: Backend, normalize: bool, label_smoothing: float, reduction: str
) -> None:
    options = {"normalize": normalize, "label_smoothing": label_smoothing, "reduction": reduction, "temperature": 0.3}
    assert_like_torch(implementation, backend(*batch()), 1e-5, 1e-5, **options)
    assert_like_torch(implementation, backend(*batch(dtype=torch.float64)), 1e-10, 1e-12, **options)


@pytest.mark.parametrize(
    "rows, clusters, dim",
    [
        (1, 1, 1),
        (1, 5, 3),
        (7, 1, 4),
        (33, 1000, 17),
        (256, 60, 128),
        (3, 9, 2048),
        (2, 6, 4101),
        (500, 9000, 8),
        (130, 32769, 4),
    ],
)
def test_any_shape(implementation: ModuleType, backend: Backend, rows: int, clusters: int, dim: int) -> None:
    assert_like_torch(implementation, backend(*batch(rows, clusters, dim)), 1e-5, 2e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_features_are_computed_in_float32(
    implementation: ModuleType, backend: Backend, dtype: torch.dtype
) -> None:
    inputs = backend(*batch(dtype=dtype))
    found = value_and_gradients(implementation.centroid_contrastive_loss, inputs)
    want = value_and_gradients(torch_loss, inputs)
    assert found[0].dtype == torch.float32 and found[1].dtype == found[2].dtype == dtype
    torch.testing.assert_close(found[0].double(), want[0].double(), rtol=1e-5, atol=0)
    for ours, theirs in zip(found[1:], want[1:], strict=True):  # rounded once, at the end
        torch.testing.assert_close(
            ours.double(), theirs.double(), rtol=torch.finfo(dtype).eps, atol=1e-5 * float(theirs.abs().max())
        )


@pytest.mark.parametrize("features_dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("memory_dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_dtype_of_the_memory_is_free(
    implementation: ModuleType, backend: Backend, features_dtype: torch.dtype, memory_dtype: torch.dtype
) -> None:
    features, memory, labels = batch()
    inputs = backend(features.to(features_dtype), memory.to(memory_dtype), labels)
    found = value_and_gradients(implementation.centroid_contrastive_loss, inputs)
    want = value_and_gradients(torch_loss, inputs)
    assert found[0].dtype == (torch.float64 if features_dtype == torch.float64 else torch.float32)
    assert found[1].dtype == features_dtype and found[2].dtype == memory_dtype
    torch.testing.assert_close(found[0].double(), want[0].double(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("temperature", [1e-3, 1e-2, 1.0, 100.0])
def test_extreme_temperatures_neither_overflow_nor_lose_the_gradient(
    implementation: ModuleType, backend: Backend, temperature: float
) -> None:
    # Logits reach 1 / temperature, and with them their float32 rounding error.
    tolerance = 1e-5 + 1e-6 / temperature
    assert_like_torch(implementation, backend(*batch()), 1e-4, tolerance, temperature=temperature)


def test_large_features_without_normalisation_do_not_overflow(implementation: ModuleType, backend: Backend) -> None:
    features, memory, labels = backend(*batch(dtype=torch.float64))
    inputs = (features * 1e5, memory, labels)
    assert_like_torch(implementation, inputs, 1e-9, 1e-9, normalize=False)
    loss = implementation.centroid_contrastive_loss(inputs[0].float(), memory.float(), labels, normalize=False)
    torch.testing.assert_close(loss.double(), torch_loss(*inputs, normalize=False), rtol=1e-4, atol=0)


def test_tiny_and_huge_rows_are_normalised(implementation: ModuleType, backend: Backend) -> None:
    features, memory, labels = batch()
    features = features * torch.logspace(-8, 15, len(features))[:, None]
    inputs = backend(features, memory, labels.clamp_min(0))
    assert_like_torch(implementation, inputs, 1e-5, 1e-5)


def test_a_row_of_zeros_gives_a_finite_loss(implementation: ModuleType, backend: Backend) -> None:
    features, memory, labels = batch()
    features[1] = 0
    loss, gradient, _ = value_and_gradients(
        implementation.centroid_contrastive_loss, backend(features, memory, labels.clamp_min(0))
    )
    assert loss.isfinite() and gradient.isfinite().all()


@pytest.mark.parametrize("ignore_index", [-1, -100, 3, 2**40])
def test_ignored_rows_count_nowhere(implementation: ModuleType, backend: Backend, ignore_index: int) -> None:
    features, memory, labels = batch()
    labels = labels.clamp_min(0)
    labels[::3] = ignore_index
    inputs = backend(features, memory, labels)
    assert_like_torch(implementation, inputs, 1e-5, 1e-5, ignore_index=ignore_index)
    options = {"ignore_index": ignore_index, "reduction": "none"}
    losses, gradient, _ = value_and_gradients(implementation.centroid_contrastive_loss, inputs, **options)
    ignored = inputs[2] == ignore_index
    assert (losses[ignored] == 0).all() and (losses[~ignored] > 0).all()
    assert (gradient[ignored] == 0).all() and (gradient[~ignored] != 0).any(1).all()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_all_rows_ignored_is_zero_with_zero_gradients(
    implementation: ModuleType, backend: Backend, reduction: str
) -> None:
    features, memory, labels = backend(*batch())
    loss, *gradients = value_and_gradients(
        implementation.centroid_contrastive_loss, (features, memory, torch.full_like(labels, -1)), reduction=reduction
    )
    assert (loss == 0).all() and all((gradient == 0).all() for gradient in gradients)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("normalize", [True, False])
def test_gradcheck(backend: Backend, normalize: bool, reduction: str) -> None:
    features, memory, labels = backend(*batch(6, 4, 5, dtype=torch.float64))

    def loss(x: Tensor, m: Tensor) -> Tensor:
        return ccfast.centroid_contrastive_loss(
            x, m, labels, 0.5, normalize=normalize, reduction=reduction, label_smoothing=0.1
        )

    assert torch.autograd.gradcheck(loss, (features.requires_grad_(), memory.requires_grad_()))


@pytest.mark.parametrize("learned", ["features", "memory"])
def test_second_derivatives_are_refused(backend: Backend, learned: str) -> None:
    features, memory, labels = backend(*batch())
    x = {"features": features, "memory": memory}[learned].requires_grad_()
    loss = ccfast.centroid_contrastive_loss(features, memory, labels)
    (gradient,) = torch.autograd.grad(loss**2, x, create_graph=True)
    (alone,) = torch.autograd.grad(ccfast.centroid_contrastive_loss(features, memory, labels), x)
    torch.testing.assert_close(gradient.detach(), 2 * loss.detach() * alone, rtol=1e-5, atol=1e-8)
    with pytest.raises(RuntimeError, match="second derivatives are not implemented"):
        gradient.square().sum().backward()


def test_only_what_requires_grad_gets_a_gradient(implementation: ModuleType, backend: Backend) -> None:
    features, memory, labels = backend(*batch())
    assert not implementation.centroid_contrastive_loss(features, memory, labels).requires_grad
    both = value_and_gradients(implementation.centroid_contrastive_loss, (features, memory, labels))
    x = features.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(implementation.centroid_contrastive_loss(x, memory, labels) * 2, x)
    torch.testing.assert_close(gradient, 4 * both[1], rtol=1e-5, atol=1e-8)  # both: upstream gradient 0.5
    m = memory.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(implementation.centroid_contrastive_loss(features, m, labels), m)
    torch.testing.assert_close(gradient, 2 * both[2], rtol=1e-5, atol=1e-8)


def test_the_gradient_is_that_of_the_memory_before_its_update(implementation: ModuleType, backend: Backend) -> None:
    # The order of the training loop: forward, update of the memory, backward.
    features, memory, labels = backend(*batch())
    want = value_and_gradients(torch_loss, (features, memory, labels))[1] * 2
    features.requires_grad_()
    loss = implementation.centroid_contrastive_loss(features, memory, labels)
    implementation.update_memory_(memory, F.normalize(features.detach(), dim=1), labels, 0.1)
    loss.backward()
    torch.testing.assert_close(features.grad, want, rtol=1e-5, atol=1e-5 * float(want.abs().max()))


def test_strided_inputs(implementation: ModuleType, backend: Backend) -> None:
    features, memory, labels = backend(*batch(dim=64))
    strided = (features[:, ::2], memory.T[:32].T, labels)
    assert not strided[0].is_contiguous() and not strided[1].is_contiguous()
    assert_like_torch(implementation, strided, 1e-5, 1e-5)


def test_features_that_begin_anywhere(implementation: ModuleType, backend: Backend) -> None:
    features, memory, labels = backend(*batch(dim=33))
    store = torch.empty(features.numel() + 1, device=backend.device)[1:].view(features.shape)
    assert_like_torch(implementation, (store.copy_(features), memory, labels), 1e-5, 1e-5)
    assert_like_torch(implementation, (features[:, 1:], memory[:, 1:], labels), 1e-5, 1e-5)


def test_the_loss_without_gradients_is_the_same(implementation: ModuleType, backend: Backend) -> None:
    features, memory, labels = backend(*batch())
    with torch.no_grad():
        found = implementation.centroid_contrastive_loss(features.requires_grad_(), memory, labels)
    assert not found.requires_grad
    assert torch.equal(found, implementation.centroid_contrastive_loss(features, memory, labels).detach())


@pytest.mark.parametrize("labels_dtype", [torch.int32, torch.int16])
def test_labels_of_any_integer_dtype(implementation: ModuleType, backend: Backend, labels_dtype: torch.dtype) -> None:
    features, memory, labels = backend(*batch())
    found = implementation.centroid_contrastive_loss(features, memory, labels.to(labels_dtype))
    assert torch.equal(found, implementation.centroid_contrastive_loss(features, memory, labels))


@given(inputs=batches(), temperature=st.sampled_from([0.05, 0.5, 2.0]), smoothing=st.sampled_from([0.0, 0.3]))
def test_property_tied_logits_and_noise(
    implementation: ModuleType, backend: Backend, inputs: Inputs, temperature: float, smoothing: float
) -> None:
    memory, features, labels = backend(*inputs)
    options = {"temperature": temperature, "label_smoothing": smoothing, "reduction": "sum"}
    assert_like_torch(implementation, (features, memory, labels), 1e-4, 1e-4, **options)
