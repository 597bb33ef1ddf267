"""centroid_contrastive_loss: torch's cross-entropy over similarities, value and gradients."""

from __future__ import annotations

import warnings
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
    temperature: Any = 0.05,
    *,
    normalize: bool = True,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    ignore_index: int = -1,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """The same loss in plain PyTorch, in float64: cross-entropy over the columns that take part, row by row."""
    x = features.double()
    z = (F.normalize(x, dim=1) if normalize else x) @ memory.double().T / temperature
    soft = labels.is_floating_point()
    if not soft and mask is None and weights is None:
        return F.cross_entropy(
            z, labels, reduction=reduction, label_smoothing=label_smoothing, ignore_index=ignore_index
        )
    counted = (labels != 0).any(1) if soft else labels != ignore_index
    losses = []
    for i, row in enumerate(z):
        columns = torch.ones_like(row, dtype=torch.bool) if mask is None else mask[i]
        label = labels[i].double()[columns] if soft else columns.cumsum(0)[labels[i].clamp(0, len(row) - 1)] - 1
        loss = F.cross_entropy(row[columns][None], label[None], label_smoothing=label_smoothing) if counted[i] else 0
        losses.append(loss * (1 if weights is None else weights[i].double()) + 0 * row.sum())
    losses = torch.stack(losses)
    if reduction == "mean":
        return losses.sum() / counted.sum().clamp_min(1)
    return losses.sum() if reduction == "sum" else losses


def value_and_gradients(function: Any, inputs: Inputs, **options: Any) -> Inputs:
    features, memory = (value.detach().clone().requires_grad_() for value in inputs[:2])
    loss = function(features, memory, inputs[2], **options)
    # Unequal upstream gradients: a gradient that ignores them fails.
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
    # Logits, and so their float32 rounding errors, grow with 1 / temperature.
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


def extras_of(inputs: Inputs, what: str) -> tuple[Inputs, dict[str, Any]]:
    """Inputs, and options: weights of the classes, a mask, weights of the rows, temperatures, or all."""
    features, memory, labels = inputs
    rows, classes = len(features), len(memory)
    generator = torch.Generator().manual_seed(7)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64).to(features)

    options: dict[str, Any] = {}
    targets = draw(rows, classes) * (draw(rows, classes) < 0.4)
    targets[::5] = 0  # left out
    if what in ("mask", "all"):
        mask = draw(rows, classes) < 0.6
        mask[torch.arange(rows), labels.clamp_min(0)] = True
        targets *= mask
        options["mask"] = mask
    if what in ("weights", "all"):
        options["weights"] = 3 * draw(rows) - 0.5
    if what in ("temperatures", "all"):
        options["temperature"] = 0.05 + draw(classes)
    return (features, memory, targets if what in ("targets", "all") else labels), options


EXTRAS = ["targets", "mask", "weights", "temperatures", "all"]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("what", EXTRAS)
def test_targets_masks_weights_and_temperatures(
    implementation: ModuleType, backend: Backend, what: str, label_smoothing: float, reduction: str
) -> None:
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        inputs, options = extras_of(backend(*batch(dtype=dtype)), what)
        options = {"temperature": 0.2, "reduction": reduction, "label_smoothing": label_smoothing} | options
        assert_like_torch(implementation, inputs, tolerance, tolerance, **options)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("rows, clusters, dim", [(1, 1, 3), (33, 1000, 17), (6, 37, 64), (300, 4101, 8)])
def test_extras_of_any_shape(
    implementation: ModuleType, backend: Backend, rows: int, clusters: int, dim: int, normalize: bool
) -> None:
    inputs, options = extras_of(backend(*batch(rows, clusters, dim)), "all")
    assert_like_torch(implementation, inputs, 1e-5, 2e-5, normalize=normalize, **options)
    inputs, options = extras_of(backend(*batch(rows, clusters, dim)), "mask")
    assert_like_torch(implementation, inputs, 1e-5, 2e-5, normalize=normalize, **options)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_extras_of_any_dtype(implementation: ModuleType, backend: Backend, dtype: torch.dtype) -> None:
    inputs, options = extras_of(backend(*batch()), "all")
    rounded = {name: value if value.dtype == torch.bool else value.to(dtype) for name, value in options.items()}
    inputs = (*inputs[:2], inputs[2].to(dtype))
    assert_like_torch(implementation, inputs, 1e-5, 1e-5, **rounded)


def test_one_hot_weights_are_the_label_and_a_full_mask_is_none(implementation: ModuleType, backend: Backend) -> None:
    features, memory, labels = backend(*batch())
    one_hot = F.one_hot(labels.clamp_min(0), len(memory)).float() * (labels >= 0)[:, None]
    everywhere = torch.ones_like(one_hot, dtype=torch.bool)
    want = value_and_gradients(implementation.centroid_contrastive_loss, (features, memory, labels))
    for targets, options in (
        (one_hot, {}),
        (labels, {"mask": everywhere}),
        (labels, {"weights": torch.ones_like(labels, dtype=torch.float64)}),
        (labels, {"temperature": torch.full((len(memory),), 0.05, device=memory.device)}),
    ):
        inputs = (features, memory, targets)
        found = value_and_gradients(implementation.centroid_contrastive_loss, inputs, **options)
        for ours, theirs in zip(found, want, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6 * float(theirs.abs().max()))


@pytest.mark.parametrize("what", EXTRAS)
def test_gradcheck_with_extras(backend: Backend, what: str) -> None:
    inputs, options = extras_of(backend(*batch(6, 4, 5, dtype=torch.float64)), what)
    options = {"temperature": 0.5, "label_smoothing": 0.1} | options

    def loss(x: Tensor, m: Tensor) -> Tensor:
        return ccfast.centroid_contrastive_loss(x, m, inputs[2], **options)

    assert torch.autograd.gradcheck(loss, (inputs[0].requires_grad_(), inputs[1].requires_grad_()))


def test_the_softmax_over_chosen_columns_is_that_of_a_smaller_memory(
    implementation: ModuleType, backend: Backend
) -> None:
    # CAP's intra-camera term: the proxies of the sample's camera alone.
    features, memory, labels = backend(*batch(rows=20, clusters=12))
    labels = labels.clamp_min(0) % 4
    mask = torch.zeros(20, 12, dtype=torch.bool, device=features.device)
    mask[:, :4] = True
    found = value_and_gradients(implementation.centroid_contrastive_loss, (features, memory, labels), mask=mask)
    want = value_and_gradients(implementation.centroid_contrastive_loss, (features, memory[:4], labels))
    torch.testing.assert_close(found[0], want[0], rtol=1e-5, atol=0)
    torch.testing.assert_close(found[1], want[1], rtol=1e-4, atol=1e-6)
    assert (found[2][4:] == 0).all()


@pytest.mark.parametrize("case", range(2))
def test_label_smoothing_over_the_best_classes_is_the_authors(
    implementation: ModuleType, backend: Backend, golden: Any, case: int
) -> None:
    want = golden(f"methods/label_smoothing_{case}")
    logits, targets = backend(torch.from_numpy(want["logits"]), torch.from_numpy(want["targets"]))
    classes, epsilon = logits.shape[1], float(want["epsilon"])
    eye = torch.eye(classes, device=logits.device, dtype=logits.dtype)
    for name, k in (("uniform", 0), ("topk", classes // 50)):
        x = logits.clone().requires_grad_()
        weights = (1 - epsilon) * F.one_hot(targets, classes).to(logits)
        if k > 1:
            weights.scatter_add_(1, logits.topk(k).indices, torch.full((len(logits), k), epsilon / k).to(logits))
        else:
            weights += epsilon / classes
        loss = implementation.centroid_contrastive_loss(x, eye, weights, 1.0, normalize=False)
        loss.backward()
        assert abs(loss.item() - want[f"loss_{name}"]) <= 2e-6 + 1e-5 * abs(want[f"loss_{name}"])
        np.testing.assert_allclose(x.grad.cpu().numpy(), want[f"grad_{name}"], rtol=0, atol=2e-6)


@pytest.mark.parametrize("case", range(8))
def test_3c_weighted_losses_are_the_authors(
    implementation: ModuleType, backend: Backend, golden: Any, case: int
) -> None:
    want = golden(f"methods/camera_update_{case}")
    wide = want["inputs"].dtype == np.float64
    for step, memory in enumerate([want["memory"], *want["memory_after"][:-1]]):
        features = backend(torch.from_numpy(want["inputs"][step])).requires_grad_()
        memory, labels, cameras = backend(
            torch.from_numpy(memory), *(torch.from_numpy(want[name][step]) for name in ("targets", "cameras"))
        )
        weights = reweighted(labels, cameras).to(features) if want["reweight"] else None
        loss = implementation.centroid_contrastive_loss(
            features, memory, labels, float(want["temperature"]), weights=weights
        )
        loss.backward()
        expected = want["loss"][step]
        assert abs(loss.item() - expected) <= (1e-12 if wide else 2e-6 + 1e-5 * abs(expected))
        largest = np.abs(want["grad"][step]).max()
        atol = 1e-12 if wide else 2e-6 + 5e-6 * largest
        np.testing.assert_allclose(features.grad.cpu().numpy(), want["grad"][step], rtol=0, atol=atol)


def reweighted(labels: Tensor, cameras: Tensor) -> Tensor:
    """3C: for each of the n clusters of the batch w = n e^H / sum e^H, H the entropy of its cameras in bits."""
    present = labels[labels >= 0].unique()
    entropy = []
    for label in present:
        share = cameras[labels == label].unique(return_counts=True)[1].double()
        share = share / share.sum()
        entropy.append(-(share * share.log2()).sum())
    per_cluster = len(present) * torch.stack(entropy).softmax(0)
    weights = torch.ones(len(labels), dtype=torch.float64, device=labels.device)
    for label, weight in zip(present, per_cluster, strict=True):
        weights[labels == label] = weight
    return weights


@pytest.mark.parametrize(
    "change, word",
    [
        ({"mask": lambda mask: mask & False}, "mask"),
        ({"mask": lambda mask: mask[:, 1:]}, "mask"),
        ({"weights": lambda weights: weights / 0}, "weights"),
        ({"weights": lambda weights: weights[1:]}, "weights"),
        ({"temperature": lambda temperature: temperature * 0}, "temperature"),
        ({"temperature": lambda temperature: -temperature}, "temperature"),
        ({"temperature": lambda temperature: temperature[1:]}, "temperature"),
        ({"labels": lambda labels: labels[:, 1:]}, "labels"),
        ({"labels": lambda labels: labels / 0}, "labels"),
        ({"labels": lambda labels: labels + 1}, "mask"),
    ],
)
def test_bad_extras_are_refused_by_name(
    implementation: ModuleType, backend: Backend, change: dict[str, Any], word: str
) -> None:
    if backend.name != "cpu":
        pytest.skip("nothing waits for the device: data is not looked at there")
    (features, memory, targets), options = extras_of(batch(), "all")
    given = options | {"labels": targets}
    given = {name: change[name](value) if name in change else value for name, value in given.items()}
    with pytest.raises(ValueError, match=f"^{word}"):
        implementation.centroid_contrastive_loss(features, memory, given.pop("labels"), **given)


@pytest.mark.parametrize("name", ["labels", "weights", "temperature"])
def test_tensors_without_a_computed_gradient_must_not_require_one(
    implementation: ModuleType, backend: Backend, name: str
) -> None:
    (features, memory, targets), options = extras_of(backend(*batch()), "all")
    given = options | {"labels": targets}
    given[name].requires_grad_()
    with pytest.raises(ValueError, match=f"^{name}: expected a tensor that needs no gradient"):
        implementation.centroid_contrastive_loss(features, memory, given.pop("labels"), **given)
    with torch.no_grad():
        given = options | {"labels": targets}
        implementation.centroid_contrastive_loss(features, memory, given.pop("labels"), **given)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("row", [0, 5, 9])
@pytest.mark.parametrize("what", ["plain", "all"])
def test_a_memory_that_is_not_finite_is_refused_wherever(
    implementation: ModuleType, backend: Backend, what: str, row: int, value: float
) -> None:
    if backend.name != "cpu":
        pytest.skip("nothing waits for the device: data is not looked at there")
    inputs, options = extras_of(batch(), what)
    inputs[1][row, 3] = value
    for labels in (inputs[2], torch.full((24,), 5), torch.full((24,), -1)):
        labels = inputs[2] if what == "all" else labels
        with pytest.raises(ValueError, match=f"^memory: expected finite values, got a non-finite value in row {row}"):
            implementation.centroid_contrastive_loss(inputs[0], inputs[1], labels, **options)


@pytest.mark.parametrize("dtype, largest", [(torch.float32, 3e38), (torch.float64, 1e300)])
def test_rows_beyond_the_range_of_float32_are_normalised(
    implementation: ModuleType, backend: Backend, dtype: torch.dtype, largest: float
) -> None:
    if dtype == torch.float64 and (backend.name != "cpu" or implementation is ccfast.reference):
        pytest.skip("squares beyond float64 are left to the CPU kernel")
    if dtype == torch.float32 and implementation is ccfast.reference:
        pytest.skip("torch.nn.functional.normalize takes the norm in float32")
    features, memory, labels = backend(*batch(dtype=dtype))
    features = features.sign() * largest
    want = implementation.centroid_contrastive_loss(features.sign(), memory, labels)
    torch.testing.assert_close(
        implementation.centroid_contrastive_loss(features, memory, labels), want, rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("learned", [(0,), (1,), (0, 1)])
def test_forward_mode_derivatives_are_refused(backend: Backend, learned: tuple[int, ...]) -> None:
    inputs = list(backend(*batch()))

    def loss(*values: Tensor) -> Tensor:
        given = list(inputs)
        for position, value in zip(learned, values, strict=True):
            given[position] = value
        return ccfast.centroid_contrastive_loss(*given)

    primals = tuple(inputs[position] for position in learned)
    tangents = tuple(map(torch.ones_like, primals))
    with pytest.raises(NotImplementedError, match="forward-mode derivatives"):
        torch.func.jvp(loss, primals, tangents)
    with torch.autograd.forward_ad.dual_level():
        duals = [torch.autograd.forward_ad.make_dual(x, t) for x, t in zip(primals, tangents, strict=True)]
        with pytest.raises(NotImplementedError, match="forward-mode derivatives"):
            loss(*duals)


@pytest.mark.parametrize("of", ["features", "memory"])
def test_second_derivatives_do_not_come_out_as_zero(backend: Backend, of: str) -> None:
    features, memory, labels = backend(*batch())

    def loss(x: Tensor) -> Tensor:
        given = {"features": features, "memory": memory} | {of: x}
        return ccfast.centroid_contrastive_loss(given["features"], given["memory"], labels)

    x = {"features": features, "memory": memory}[of]
    with pytest.raises(RuntimeError, match="second derivatives are not implemented"):
        torch.autograd.functional.hessian(loss, x)
    with pytest.raises(RuntimeError, match="second derivatives are not implemented"):
        torch.autograd.functional.jvp(loss, x, torch.ones_like(x))  # two backward passes
    for transform in (torch.func.hessian, torch.func.jacfwd, torch.func.grad, torch.func.vjp, torch.func.jacrev):
        with pytest.raises(RuntimeError, match=r"not implemented|cannot use C\+\+"):
            transform(loss)(x) if transform is not torch.func.vjp else transform(loss, x)


def test_vmap_gives_the_loss_of_each(backend: Backend) -> None:
    features, memory, labels = backend(*batch())
    stacked = torch.stack([features, 2 * features + 1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that it loops
        found = torch.func.vmap(lambda x: ccfast.centroid_contrastive_loss(x, memory, labels))(stacked)
    want = [ccfast.centroid_contrastive_loss(x, memory, labels) for x in stacked]
    torch.testing.assert_close(found, torch.stack(want), rtol=1e-6, atol=0)
