"""ccfast.nn.ClusterMemory: the authors' losses, gradients and memories step by step, and when the memory is updated."""

from __future__ import annotations

import copy
import gc
import pickle
import re
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import Backend
from sample_inputs import memory_batch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import ccfast
from ccfast.nn import ClusterMemory, _recomputation


def filled(backend: Backend, mode: str = "sequential", **options: Any) -> tuple[ClusterMemory, Tensor, Tensor]:
    """A memory on the backend, inputs of any norm that require grad, and targets."""
    memory, features, targets = memory_batch(clusters=6, dim=16, batch=24)
    module = ClusterMemory(16, 6, mode=mode, **options)
    module.features.copy_(memory)
    inputs, targets = backend(3 * features, targets)
    return module.to(backend.device), inputs.requires_grad_(), targets


@pytest.mark.parametrize("case", range(4))
def test_three_steps_are_the_authors(backend: Backend, golden: Any, case: int) -> None:
    want = golden(f"cluster_memory_{case}")
    clusters, dim = want["memory"].shape
    mode = "hardest" if want["hard"] else "sequential"
    module = ClusterMemory(dim, clusters, float(want["temperature"]), float(want["momentum"]), mode)
    module.features.copy_(torch.from_numpy(want["memory"]))
    module.to(backend.device).train()
    for step in range(3):
        inputs, targets = backend(torch.from_numpy(want["inputs"][step]), torch.from_numpy(want["targets"][step]))
        inputs.requires_grad_()
        loss = module(inputs, targets)
        loss.backward()
        np.testing.assert_allclose(loss.item(), want["loss"][step], rtol=1e-5)
        largest = np.abs(want["grad"][step]).max()
        np.testing.assert_allclose(inputs.grad.cpu().numpy(), want["grad"][step], rtol=1e-5, atol=1e-5 * largest)
        np.testing.assert_allclose(module.features.cpu().numpy(), want["memory_after"][step], rtol=0, atol=2e-6)


@pytest.mark.parametrize("mode", ["sequential", "hardest", "mean"])
def test_a_step_is_the_loss_of_the_old_memory_and_then_the_update(backend: Backend, mode: str) -> None:
    module, inputs, targets = filled(backend, mode, temperature=0.1, momentum=0.3)
    expected = module.features.clone()
    again = inputs.detach().clone().requires_grad_()
    want = ccfast.reference.centroid_contrastive_loss(again, expected.clone(), targets, 0.1)
    want.backward()
    ccfast.reference.update_memory_(expected, F.normalize(inputs.detach(), dim=1), targets, 0.3, mode)

    loss = module(inputs, targets)
    loss.backward()
    torch.testing.assert_close(loss, want, rtol=1e-5, atol=0)
    torch.testing.assert_close(inputs.grad, again.grad, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(module.features, expected, rtol=0, atol=2e-6)


def test_the_memory_stays_in_eval_mode_and_without_gradients(backend: Backend) -> None:
    module, inputs, targets = filled(backend)
    before = module.features.clone()
    trained = module.eval()(inputs, targets)
    assert torch.equal(module.features, before)
    with torch.no_grad():
        module.train()(inputs, targets)
    assert torch.equal(module.features, before)
    assert torch.equal(module(inputs, targets), trained), "the loss is the same in every mode"
    assert not torch.equal(module.features, before)


def test_noise_counts_neither_in_the_loss_nor_in_the_update(backend: Backend) -> None:
    module, inputs, targets = filled(backend)
    alone = copy.deepcopy(module)
    kept = targets >= 0
    assert 0 < kept.sum() < len(targets)
    torch.testing.assert_close(module(inputs, targets), alone(inputs[kept], targets[kept]), rtol=1e-6, atol=0)
    assert torch.equal(module.features, alone.features)
    before = module.features.clone()
    loss = module(inputs, torch.full_like(targets, -1))
    loss.backward()
    assert loss == 0 and torch.equal(module.features, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_inputs_of_autocast_train_a_float32_memory(backend: Backend, dtype: torch.dtype) -> None:
    module, inputs, targets = filled(backend)
    exact = copy.deepcopy(module)
    half = inputs.detach().to(dtype).requires_grad_()
    loss = module(half, targets)
    loss.backward()
    assert loss.dtype == module.features.dtype == torch.float32 and half.grad.dtype == dtype
    torch.testing.assert_close(loss, exact(half.detach().float().requires_grad_(), targets), rtol=1e-5, atol=0)
    torch.testing.assert_close(module.features, exact.features, rtol=0, atol=2e-6)


def test_the_memory_is_a_buffer_that_state_dicts_carry(backend: Backend) -> None:
    module, inputs, targets = filled(backend)
    assert list(module.parameters()) == []
    assert list(module.state_dict()) == ["features"]
    other = ClusterMemory(16, 6).to(backend.device)
    other.load_state_dict(module.state_dict())
    assert torch.equal(other.features, module.features)
    module(inputs, targets)
    assert not torch.equal(other.features, module.features), "loaded, not shared"


def test_centroids_may_be_assigned_as_the_authors_scripts_do(backend: Backend) -> None:
    _, inputs, targets = filled(backend)
    centroids = ccfast.cluster_centroids(inputs, targets)
    fresh = ClusterMemory(16, len(centroids))
    fresh.features = centroids
    assert torch.equal(fresh.state_dict()["features"], centroids)
    fresh(inputs, targets)
    assert not torch.equal(fresh.features, ccfast.cluster_centroids(inputs, targets))


def test_copies_and_pickles_are_independent(backend: Backend) -> None:
    module, inputs, targets = filled(backend, "mean", momentum=0.4, temperature=0.2)
    before = module.features.clone()
    copies = [copy.deepcopy(module), pickle.loads(pickle.dumps(module))]
    loss = module(inputs, targets)
    for each in copies:
        assert torch.equal(each.features, before)
        assert torch.equal(each(inputs, targets), loss) and torch.equal(each.features, module.features)


def test_a_new_memory_is_zeros_and_its_repr_has_the_options() -> None:
    module = ClusterMemory(16, 6, mode="hardest", momentum=0.25)
    assert module.features.shape == (6, 16) and (module.features == 0).all()
    for word in ("16", "6", "hardest", "0.25", "0.05"):
        assert word in repr(module)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"num_features": 0}, ("num_features", "at least 1")),
        ({"num_clusters": 0}, ("num_clusters", "at least 1")),
        ({"temperature": 0}, ("temperature", "got 0.0")),
        ({"momentum": 1.5}, ("momentum", "got 1.5")),
        ({"mode": "softest"}, ("mode", "'softest'", "'hardest'")),
    ],
)
def test_bad_arguments_are_refused_when_it_is_made(arguments: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError) as caught:
        ClusterMemory(**{"num_features": 4, "num_clusters": 3} | arguments)
    assert all(word in str(caught.value) for word in words)


def test_bad_batches_are_refused_and_leave_the_memory(backend: Backend) -> None:
    if backend.name != "cpu":
        pytest.skip("the CUDA kernels of a training step do not wait for a look at the data")
    module, inputs, targets = filled(backend)
    before = module.features.clone()
    broken = inputs.detach().clone()
    broken[3, 2] = torch.nan
    for bad_inputs, bad_targets in [
        (broken, targets),
        (inputs, targets + 3),
        (inputs[:, :8], targets),
        (inputs, targets[1:]),
    ]:
        with pytest.raises(ValueError):
            module(bad_inputs, bad_targets)
    assert torch.equal(module.features, before)


class Net(torch.nn.Module):
    """An encoder and a memory in one function that may be checkpointed."""

    def __init__(self, module: ClusterMemory, outside: str) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.first = torch.nn.Linear(16, 16, bias=False)
        self.first.weight.data = torch.eye(16) + 0.1 * torch.randn(16, 16, generator=generator)
        self.module, self.outside = module, outside

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        loss = self.module(self.first(inputs).tanh(), targets)
        return {"none": lambda: loss, "factor": lambda: 3 * loss, "square": lambda: loss.square()}[self.outside]()


def trained(net: Net, inputs: Tensor, targets: Tensor, calls: int, **options: Any) -> tuple[Tensor, ...]:
    """Losses, gradients and the memory after ``calls`` forward passes and one backward pass."""
    inputs = inputs.detach().clone().requires_grad_()
    batches = [(inputs[k:], targets[k:]) for k in range(calls)]
    run = (lambda *batch: checkpoint(net, *batch, **options)) if options else net
    losses = [run(*batch) for batch in batches]
    sum(losses).backward()
    return torch.stack(losses).detach(), inputs.grad, net.first.weight.grad, net.module.features.clone()


@pytest.mark.parametrize("update", ["forward", "backward"])
@pytest.mark.parametrize("outside", ["none", "factor", "square"])
@pytest.mark.parametrize(
    "calls, options",
    [
        (1, {"use_reentrant": True}),
        (1, {"use_reentrant": False}),
        (1, {"use_reentrant": False, "early_stop": False}),
        (2, {"use_reentrant": False}),
        (3, {"use_reentrant": False, "early_stop": False}),
    ],
)
def test_a_checkpointed_memory_moves_once_and_the_gradient_is_the_same(
    backend: Backend, update: str, outside: str, calls: int, options: dict[str, Any]
) -> None:
    module, inputs, targets = filled(backend, update=update, temperature=0.3)
    stop = options.pop("early_stop", True)
    nets = [Net(copy.deepcopy(module), outside).to(backend.device) for _ in range(2)]
    want = trained(nets[0], inputs, targets, calls)
    with torch.utils.checkpoint.set_checkpoint_early_stop(stop):
        found = trained(nets[1], inputs, targets, calls, **options)
    options["early_stop"] = stop
    for ours, theirs in zip(found, want, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)
    assert not torch.equal(want[-1], module.features)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_a_memory_alone_may_be_checkpointed(backend: Backend, use_reentrant: bool) -> None:
    module, inputs, targets = filled(backend)
    other, again = copy.deepcopy(module), inputs.detach().clone().requires_grad_()
    module(inputs, targets).backward()
    checkpoint(other, again, targets, use_reentrant=use_reentrant).backward()
    assert torch.equal(again.grad, inputs.grad) and torch.equal(other.features, module.features)


def test_a_checkpoint_in_a_checkpoint_is_one_update(backend: Backend) -> None:
    module, inputs, targets = filled(backend)
    other, again = copy.deepcopy(module), inputs.detach().clone().requires_grad_()
    module(inputs, targets).square().backward()

    def inner(x: Tensor) -> Tensor:
        return checkpoint(lambda x: checkpoint(other, x, targets, use_reentrant=False), x, use_reentrant=False).square()

    checkpoint(inner, again, use_reentrant=False).backward()
    torch.testing.assert_close(again.grad, inputs.grad, rtol=1e-6, atol=1e-8)
    assert torch.equal(other.features, module.features)


def test_other_hooks_of_saved_tensors_are_left_alone(backend: Backend) -> None:
    module, inputs, targets = filled(backend)
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        module(inputs, targets).backward()
    assert saved, "the tensors that the loss keeps pass the user's hooks"


def test_what_a_checkpoint_remembers_goes_with_its_graph(backend: Backend) -> None:
    module, inputs, targets = filled(backend)
    loss = checkpoint(module, inputs, targets, use_reentrant=False)
    assert len(_recomputation._CALLS[module]) == 1
    del loss
    gc.collect()
    assert len(_recomputation._CALLS[module]) == 0
    assert pickle.loads(pickle.dumps(module)).features.shape == module.features.shape


@pytest.mark.parametrize("update", ["forward", "backward"])
def test_errors_name_the_arguments_of_the_module(backend: Backend, update: str) -> None:
    module, inputs, targets = filled(backend, update=update)
    faults = [
        (inputs[:, :8], targets, ValueError, "inputs"),
        (inputs[0], targets, ValueError, "inputs"),
        (inputs, targets[1:], ValueError, "targets: expected length 24, one for each row of inputs, got 23"),
        (inputs, targets.double(), TypeError, "targets"),
        (inputs.long(), targets, TypeError, "inputs"),
    ]
    if backend.name == "cpu":
        faults += [
            (inputs, targets + 6, ValueError, "targets"),
            (torch.full_like(inputs, torch.nan), targets, ValueError, "inputs"),
        ]
    for given, labels, kind, words in faults:
        with pytest.raises(kind, match=f"^{words}") as caught:
            module(given, labels)
        assert "labels" not in str(caught.value) and not re.search(r"^features", str(caught.value))


@pytest.mark.parametrize("update", ["forward", "backward"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("row", range(6))
def test_a_memory_that_is_not_finite_is_refused(backend: Backend, row: int, value: float, update: str) -> None:
    if backend.name != "cpu":
        pytest.skip("nothing waits for the device: data is not looked at there")
    module, inputs, targets = filled(backend, update=update)
    module.features[row, 2] = value
    with pytest.raises(ValueError, match=f"^memory: .* row {row}"):
        module(inputs, targets)


def test_the_memory_is_float32_with_any_default_dtype() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        module = ClusterMemory(16, 6)
        memory, inputs, targets = memory_batch(clusters=6, dim=16, batch=24)
        module.features.copy_(memory)
        module(inputs.requires_grad_(), targets).backward()
    finally:
        torch.set_default_dtype(torch.float32)
    assert module.features.dtype == torch.float32 and inputs.grad.dtype == torch.float32
