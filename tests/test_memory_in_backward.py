"""When the memory is updated: update="backward" of ccfast.nn.ClusterMemory, and ccfast.compat.ClusterMemory."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import Backend
from sample_inputs import memory_batch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import ccfast
from ccfast import compat
from ccfast.nn import ClusterMemory

TEMPERATURE, MOMENTUM = 0.1, 0.3


def filled(
    backend: Backend, mode: str = "sequential", update: str = "backward"
) -> tuple[ClusterMemory, Tensor, Tensor]:
    """A memory on the backend, inputs of any norm, and targets, some of which are -1."""
    rows, features, targets = memory_batch(clusters=6, dim=16, batch=24)
    module = ClusterMemory(16, 6, TEMPERATURE, MOMENTUM, mode, update)
    module.features.copy_(rows)
    return module.to(backend.device), backend(3 * features), backend(targets)


def rows_after(memory: Tensor, inputs: Tensor, targets: Tensor, mode: str = "sequential") -> Tensor:
    """The memory after one update, by the reference."""
    rows = memory.detach().clone()
    features = F.normalize(inputs.detach().to(rows.dtype), dim=1)
    ccfast.reference.update_memory_(rows, features, targets, MOMENTUM, mode)
    return rows


def gradient_by_hand(inputs: Tensor, targets: Tensor, old: Tensor, moved: Tensor) -> Tensor:
    """The softmax of the old rows times the rows at the time of backward."""
    x = inputs.detach().clone().requires_grad_()
    unit = F.normalize(x, dim=1)
    counted = targets >= 0
    softmax = (unit.detach() @ old.T / TEMPERATURE).softmax(1)
    softmax[counted, targets[counted]] -= 1
    softmax[~counted] = 0
    unit.backward(softmax @ moved / (TEMPERATURE * counted.sum()))
    return x.grad


@pytest.mark.parametrize("mode", ["sequential", "hardest", "mean"])
def test_one_call_and_one_backward_is_a_step_of_forward(backend: Backend, mode: str) -> None:
    results = []
    for update in ("forward", "backward"):
        module, inputs, targets = filled(backend, mode, update)
        loss = module(inputs.requires_grad_(), targets)
        loss.backward()
        results.append((loss.detach(), inputs.grad, module.features))
    for forward, backward in zip(*results, strict=True):
        torch.testing.assert_close(backward, forward, rtol=1e-5, atol=2e-6)


def test_two_calls_before_one_backward_see_the_old_rows(backend: Backend) -> None:
    module, inputs, targets = filled(backend)
    old = module.features.clone()
    first, second = inputs[:14].clone().requires_grad_(), inputs[10:].clone().requires_grad_()
    losses = module(first, targets[:14]), module(second, targets[10:])
    assert torch.equal(module.features, old), "nothing moves in forward"
    sum(losses).backward()
    after_second = rows_after(old, second, targets[10:])
    for x, y, moved in ((second, targets[10:], old), (first, targets[:14], after_second)):
        torch.testing.assert_close(x.grad, gradient_by_hand(x, y, old, moved), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(module.features, rows_after(after_second, first, targets[:14]), rtol=0, atol=2e-6)
    separate = copy.deepcopy(module)
    separate.features.copy_(old)
    torch.testing.assert_close(losses[1], separate(second, targets[10:]), rtol=1e-6, atol=0)


def test_the_memory_does_not_change_without_a_backward_pass(backend: Backend) -> None:
    module, inputs, targets = filled(backend)
    before = module.features.clone()
    module(inputs.clone().requires_grad_(), targets)
    with torch.no_grad():
        module(inputs, targets)
    loss = module(inputs, targets)
    assert not loss.requires_grad and torch.equal(module.features, before)


def test_eval_mode_moves_as_training_does(backend: Backend) -> None:
    module, inputs, targets = filled(backend)
    want = rows_after(module.features, inputs, targets)
    module.eval()(inputs.requires_grad_(), targets).backward()
    torch.testing.assert_close(module.features, want, rtol=0, atol=2e-6)


def test_each_backward_of_an_accumulated_gradient_is_a_whole_update(backend: Backend) -> None:
    module, inputs, targets = filled(backend)
    rows = module.features.clone()
    for part in (slice(0, 12), slice(12, 24)):
        x, y = inputs[part].clone().requires_grad_(), targets[part]
        (module(x, y) / 2).backward()
        torch.testing.assert_close(x.grad, gradient_by_hand(x, y, rows, rows) / 2, rtol=1e-4, atol=1e-6)
        rows = rows_after(rows, x, y)
        torch.testing.assert_close(module.features, rows, rtol=0, atol=2e-6)


def test_two_forwards_and_two_backwards_move_in_the_order_of_the_backwards(backend: Backend) -> None:
    module, inputs, targets = filled(backend)
    old = module.features.clone()
    batches = [(inputs[part].clone().requires_grad_(), targets[part]) for part in (slice(0, 12), slice(12, 24))]
    losses = [module(*batch) for batch in batches]
    rows = old
    for loss, (x, y) in zip(losses, batches, strict=True):
        loss.backward()
        torch.testing.assert_close(x.grad, gradient_by_hand(x, y, old, rows), rtol=1e-4, atol=1e-6)
        rows = rows_after(rows, x, y)
    torch.testing.assert_close(module.features, rows, rtol=0, atol=4e-6)


def test_two_backwards_through_one_graph_are_two_updates(backend: Backend) -> None:
    module, inputs, targets = filled(backend)
    old = module.features.clone()
    loss = module(inputs.requires_grad_(), targets)
    (first,) = torch.autograd.grad(loss, inputs, retain_graph=True)
    moved = rows_after(old, inputs, targets)
    (second,) = torch.autograd.grad(loss, inputs)
    torch.testing.assert_close(first, gradient_by_hand(inputs, targets, old, old), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(second, gradient_by_hand(inputs, targets, old, moved), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(module.features, rows_after(moved, inputs, targets), rtol=0, atol=4e-6)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_call_moves_the_memory_once(backend: Backend, reentrant: bool) -> None:
    module, inputs, targets = filled(backend)
    want = rows_after(module.features, inputs, targets)
    old = module.features.clone()
    checkpoint(module, inputs.requires_grad_(), targets, use_reentrant=reentrant).backward()
    torch.testing.assert_close(module.features, want, rtol=0, atol=2e-6)
    torch.testing.assert_close(inputs.grad, gradient_by_hand(inputs, targets, old, old), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_inputs_and_autocast_compute_in_float32(backend: Backend, dtype: torch.dtype) -> None:
    module, inputs, targets = filled(backend)
    exact = copy.deepcopy(module)
    half = inputs.to(dtype).requires_grad_()
    with torch.autocast(backend.device.type, dtype=torch.bfloat16):
        loss = module(half, targets)
        loss.backward()
    single = half.detach().float().requires_grad_()
    want = exact(single, targets)
    want.backward()
    assert loss.dtype == module.features.dtype == torch.float32 and half.grad.dtype == dtype
    torch.testing.assert_close(loss, want, rtol=1e-6, atol=0)
    torch.testing.assert_close(half.grad, single.grad.to(dtype))
    torch.testing.assert_close(module.features, exact.features, rtol=0, atol=2e-6)


def test_float64_inputs_train_a_float64_memory(backend: Backend) -> None:
    module, inputs, targets = filled(backend)
    module.double()
    wide = inputs.double().requires_grad_()
    want = rows_after(module.features, wide, targets)
    loss = module(wide, targets)
    loss.backward()
    assert loss.dtype == torch.float64
    torch.testing.assert_close(module.features, want, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_a_compiled_step_is_that_of_eager(backend: Backend) -> None:
    torch.compiler.reset()
    results = []
    for wrap in (lambda run: run, lambda run: torch.compile(run, backend="aot_eager")):
        module, inputs, targets = filled(backend)
        inputs.requires_grad_()
        run = wrap(module)
        losses = run(2 * inputs, targets), run(inputs, targets)
        sum(losses).backward()
        results.append((torch.stack(losses).detach(), inputs.grad, module.features))
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager, rtol=1e-5, atol=1e-6)


def test_only_noise_gives_no_loss_no_gradient_and_no_update(backend: Backend) -> None:
    module, inputs, targets = filled(backend)
    before = module.features.clone()
    loss = module(inputs.requires_grad_(), torch.full_like(targets, -1))
    loss.backward()
    assert loss == 0 and not inputs.grad.any() and torch.equal(module.features, before)


def test_rows_assigned_between_forward_and_backward_are_left_alone(backend: Backend) -> None:
    module, inputs, targets = filled(backend)
    old = module.features
    want = rows_after(old, inputs, targets)
    loss = module(inputs.requires_grad_(), targets)
    module.features = torch.zeros_like(old)
    loss.backward()
    assert not module.features.any()
    torch.testing.assert_close(old, want, rtol=0, atol=2e-6)


def test_compat_reads_its_options_in_each_call(backend: Backend) -> None:
    _, inputs, targets = filled(backend)
    memory = compat.ClusterMemory(16, 6, temp=0.05, momentum=0.2).to(backend.device)
    rows = backend(memory_batch(clusters=6, dim=16, batch=24)[0])
    memory.features = rows.clone()
    memory.temp, memory.momentum, memory.use_hard = TEMPERATURE, MOMENTUM, True
    loss = memory(inputs.requires_grad_(), targets)
    want = ccfast.reference.centroid_contrastive_loss(inputs.detach(), rows, targets, TEMPERATURE)
    torch.testing.assert_close(loss.detach(), want, rtol=1e-5, atol=0)
    loss.backward()
    torch.testing.assert_close(memory.features, rows_after(rows, inputs, targets, "hardest"), rtol=0, atol=2e-6)
    assert (memory.temp, memory.momentum, memory.use_hard) == (TEMPERATURE, MOMENTUM, True)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"temperature": 0}, ("temperature", "got 0.0")),
        ({"momentum": -1}, ("momentum", "got -1.0")),
        ({"mode": "softest"}, ("mode", "'softest'")),
        ({"update": "sideways"}, ("update", "'sideways'", "'backward'")),
    ],
)
def test_options_changed_to_something_else_are_refused(change: dict[str, Any], words: tuple[str, ...]) -> None:
    module = ClusterMemory(4, 3, update="backward")
    for name, value in change.items():
        setattr(module, name, value)
    with pytest.raises(ValueError) as caught:
        module(torch.rand(2, 4), torch.tensor([0, 1]))
    assert all(word in str(caught.value) for word in words)


def test_bad_batches_are_refused_in_forward(backend: Backend) -> None:
    if backend.device.type != "cpu":
        pytest.skip("a training step on a GPU does not wait for a look at the data")
    module, inputs, targets = filled(backend)
    broken = inputs.clone()
    broken[3, 2] = torch.nan
    for bad_inputs, bad_targets in [
        (broken, targets),
        (inputs, targets + 3),
        (inputs[:, :8], targets),
        (inputs, targets[1:]),
    ]:
        with pytest.raises(ValueError):
            module(bad_inputs, bad_targets)


def test_a_second_derivative_is_refused(backend: Backend) -> None:
    module, inputs, targets = filled(backend)
    (gradient,) = torch.autograd.grad(module(inputs.requires_grad_(), targets), inputs, create_graph=True)
    with pytest.raises(RuntimeError):
        gradient.sum().backward()
