"""What the modules of ccfast.nn have in common: updates of the state, noise, precision, state dicts, bad input.

test_methods.py compares the results of each with its authors' outputs.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import Backend
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ccfast import nn

CLUSTERS, DIM, BATCH = 6, 16, 12


def rows(count: int, seed: int = 0, dim: int = DIM) -> Tensor:
    return F.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


TARGETS = torch.tensor([0, 3, 3, -1, 5, 0, 2, 5, 3, -1, 2, 0])
CAMERAS = torch.tensor([0, 1, 2, 0, 1, 1, 0, 1, 2, 1, 0, 0])
PROXIES = torch.cartesian_prod(torch.arange(CLUSTERS), torch.arange(3)).T


def filled(module: Any) -> Any:
    with torch.no_grad():
        module.features.copy_(rows(len(module.features), seed=1))
    return module


def hybrid(**options: Any) -> nn.HybridMemory:
    memory = filled(nn.HybridMemory(DIM, 20, normalize=True, **options))
    memory.labels = torch.arange(20) % 7
    return memory


def proxies(preset: Callable[..., nn.ProxyMemory], **options: Any) -> nn.ProxyMemory:
    memory = preset(DIM, num_negatives=5, normalize=True, **options)
    memory.fill(rows(PROXIES.shape[1], seed=1), *PROXIES)
    return memory


@dataclass(frozen=True)
class Kind:
    """A module with state: its constructor, its arguments besides the inputs, and its state."""

    make: Callable[..., Any]
    arguments: tuple[Any, ...]
    state: Callable[[Any], Tensor] = lambda module: module.features
    noise: bool = True


KINDS: dict[str, Kind] = {
    "DualMemory.hhcl": Kind(lambda **o: filled(nn.DualMemory.hhcl(DIM, CLUSTERS, normalize=True, **o)), (TARGETS,)),
    "DualMemory.pclhd": Kind(lambda **o: filled(nn.DualMemory.pclhd(DIM, CLUSTERS, **o)), (TARGETS,)),
    "InstanceMemory": Kind(
        lambda **o: filled(nn.InstanceMemory(DIM, CLUSTERS, 2, **o)),
        (TARGETS, torch.tensor([[0, 1], [1, 0], [1, 1], [0, 0]])),
    ),
    "InstanceMemory with centroids": Kind(
        lambda **o: filled(nn.InstanceMemory(DIM, CLUSTERS, 3, centroid=True, **o)), (TARGETS,)
    ),
    **{
        f"CameraMemory {mode}": Kind(
            lambda mode=mode, **o: filled(nn.CameraMemory(DIM, CLUSTERS, mode=mode, reweight=True, **o)),
            (TARGETS, CAMERAS),
        )
        for mode in ("cm_camera", "hd_camera")
    },
    "HybridMemory": Kind(hybrid, (torch.where(TARGETS < 0, -1, TARGETS + 7),)),
    "InstanceBank": Kind(lambda **o: filled(nn.InstanceBank(DIM, 20, normalize=True, **o)), (TARGETS,)),
    "InstanceBank with NCE": Kind(
        lambda **o: filled(nn.InstanceBank(DIM, 20, num_negatives=4, normalize=True, **o)),
        (TARGETS, torch.cat([TARGETS.clamp_min(0)[:, None], torch.arange(48).view(12, 4) % 20], 1)),
    ),
    "ProxyMemory.cap": Kind(lambda **o: proxies(nn.ProxyMemory.cap, **o), (TARGETS, CAMERAS)),
    "ProxyMemory.o2cap": Kind(lambda **o: proxies(nn.ProxyMemory.o2cap, **o), (TARGETS, CAMERAS)),
    "QueueContrast": Kind(
        lambda **o: nn.QueueContrast(DIM, 24, **o), (rows(BATCH, seed=2),), lambda module: module.queue, noise=False
    ),
}


def prepared(kind: Kind, backend: Backend, **options: Any) -> tuple[Any, Tensor, tuple[Any, ...]]:
    torch.manual_seed(3)
    arguments = tuple(backend(value) for value in kind.arguments)
    return kind.make(**options).to(backend.device), backend(3 * rows(BATCH)).requires_grad_(), arguments


@pytest.mark.parametrize("name", KINDS)
def test_a_step_is_the_same_whenever_the_state_moves(backend: Backend, name: str) -> None:
    kind, results = KINDS[name], []
    for update in ("forward", "backward"):
        module, inputs, arguments = prepared(kind, backend, update=update)
        before = kind.state(module).clone()
        loss = module(inputs, *arguments)
        assert torch.equal(kind.state(module), before) == (update == "backward")
        (2 * loss).backward()
        assert not torch.equal(kind.state(module), before)
        results.append((loss.detach(), inputs.grad, kind.state(module)))
    for forward, backward in zip(*results, strict=True):
        torch.testing.assert_close(forward, backward, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", KINDS)
def test_when_the_state_stays(backend: Backend, name: str) -> None:
    kind = KINDS[name]
    for update in ("forward", "backward"):
        module, inputs, arguments = prepared(kind, backend, update=update)
        before = kind.state(module).clone()
        with torch.no_grad():
            module(inputs, *arguments)
        assert torch.equal(kind.state(module), before)
        module.eval()(inputs, *arguments).backward()
        assert torch.equal(kind.state(module), before) == (update == "forward"), "eval moves in backward alone"


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("update", ["forward", "backward"])
@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_call_is_one_step(backend: Backend, name: str, update: str, reentrant: bool) -> None:
    kind, results = KINDS[name], []
    for wrapped in (False, True):
        module, inputs, arguments = prepared(kind, backend, update=update)
        options = {"use_reentrant": reentrant}
        loss = checkpoint(module, inputs, *arguments, **options) if wrapped else module(inputs, *arguments)
        loss.backward()
        results.append((loss.detach(), inputs.grad, kind.state(module)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("update", ["forward", "backward"])
def test_checkpointed_calls_with_equal_inputs_keep_their_losses(backend: Backend, name: str, update: str) -> None:
    kind, results = KINDS[name], []
    for wrapped in (False, True):
        module, inputs, arguments = prepared(kind, backend, update=update)
        turned = [value.flip(0) if torch.is_tensor(value) and len(value) == BATCH else value for value in arguments]

        def squared(*values: Any, module: Any = module) -> Tensor:  # its gradient depends on the loss
            return module(*values).square()

        run = functools.partial(checkpoint, squared, use_reentrant=False) if wrapped else squared
        sum(run(inputs, *values) for values in (arguments, turned)).backward()
        results.append(inputs.grad)
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("name", KINDS)
def test_two_calls_before_one_backward_see_one_state(backend: Backend, name: str) -> None:
    module, inputs, arguments = prepared(KINDS[name], backend, update="backward")
    losses = [module(inputs, *arguments) for _ in range(2)]
    assert torch.equal(*losses)
    sum(losses).backward()
    assert torch.isfinite(inputs.grad).all()


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.noise])
def test_noise_counts_nowhere(backend: Backend, name: str) -> None:
    kind = KINDS[name]
    module, inputs, arguments = prepared(kind, backend, update="backward")
    alone = copy.deepcopy(module)
    kept = backend(TARGETS >= 0)
    loss = module(inputs, *arguments)
    of_samples = [value[kept] if len(value) == BATCH else value for value in arguments]
    want = alone(inputs.detach()[kept].requires_grad_(), *of_samples)
    torch.testing.assert_close(loss, want, rtol=1e-5, atol=1e-6)
    loss.backward(), want.backward()
    assert not inputs.grad[~kept].any() and inputs.grad[kept].any(1).all()
    torch.testing.assert_close(kind.state(module), kind.state(alone), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.noise and "draws" not in name])
def test_only_noise_is_no_loss(backend: Backend, name: str) -> None:
    kind = KINDS[name]
    module, inputs, arguments = prepared(kind, backend, update="backward")
    before = kind.state(module).clone()
    arguments = (torch.full_like(arguments[0], -1), *arguments[1:])
    if name == "InstanceMemory":
        arguments = arguments[:1]
    loss = module(inputs, *arguments)
    loss.backward()
    assert loss == 0 and not inputs.grad.any() and torch.equal(kind.state(module), before)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_inputs_under_autocast_are_computed_in_float32(backend: Backend, name: str, dtype: torch.dtype) -> None:
    kind, results = KINDS[name], []
    for half in (True, False):
        module, inputs, arguments = prepared(kind, backend, update="backward")
        inputs = inputs.detach().to(dtype)
        inputs = (inputs if half else inputs.float()).requires_grad_()
        with torch.autocast(backend.device.type, dtype=torch.bfloat16, enabled=half):
            loss = module(inputs, *arguments)
        loss.backward()
        assert loss.dtype == kind.state(module).dtype == torch.float32 and inputs.grad.dtype == inputs.dtype
        results.append((loss.detach(), inputs.grad.to(dtype), kind.state(module)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", KINDS)
def test_state_dicts_and_copies_carry_the_state(backend: Backend, name: str) -> None:
    kind = KINDS[name]
    module, inputs, arguments = prepared(kind, backend, update="forward")
    module(inputs, *arguments)
    other = kind.make(update="forward").to(backend.device)
    other.load_state_dict(module.state_dict())
    for each in (other, copy.deepcopy(module)):
        assert torch.equal(kind.state(each), kind.state(module))
        assert torch.equal(each.eval()(inputs, *arguments), module.eval()(inputs, *arguments))
    assert type(module).__name__ in repr(module)


@pytest.mark.parametrize("name", KINDS)
def test_bad_batches_are_refused_and_the_state_stays(backend: Backend, name: str) -> None:
    kind = KINDS[name]
    module, inputs, arguments = prepared(kind, backend, update="forward")
    before = kind.state(module).clone()
    bad = [(inputs[:, :5], *arguments), (inputs[:-1], *arguments), (inputs.long(), *arguments)]
    if backend.name == "cpu":
        broken = inputs.detach().clone()
        broken[2, 3] = torch.nan
        bad.append((broken, *arguments))
        if kind.noise:
            bad.append((inputs, arguments[0] + 1000, *arguments[1:]))
    for batch in bad:
        with pytest.raises((ValueError, TypeError)):
            module(*batch)
    with pytest.raises(ValueError, match="update"):
        kind.make(update="never")
    if backend.name == "cpu" and kind.noise:
        assert torch.equal(kind.state(module), before)


def test_more_samples_than_rows_are_refused() -> None:
    module = filled(nn.InstanceMemory(DIM, CLUSTERS, 2, centroid=True))
    with pytest.raises(ValueError, match=r"at most 2 samples of a cluster \(num_instances\), got 3 of cluster 0"):
        module(rows(3), torch.zeros(3, dtype=torch.int64))


def test_draws_are_of_the_batch_and_without_repeats_from_sixteen_on() -> None:
    module = filled(nn.InstanceMemory(DIM, 2, 16, update="backward"))
    inputs = rows(20).requires_grad_()
    module(inputs, torch.tensor([1] * 16 + [0] * 4)).backward()
    found = module.features.view(16, 2, DIM)
    of_many = {tuple(row.tolist()) for row in found[:, 1]}
    assert of_many == {tuple(row.tolist()) for row in F.normalize(inputs.detach()[:16], dim=1)}
    of_few = {tuple(row.tolist()) for row in found[:, 0]}
    assert of_few <= {tuple(row.tolist()) for row in F.normalize(inputs.detach()[16:], dim=1)}
    with pytest.raises(ValueError, match="draws: expected shape"):
        module(inputs, torch.zeros(20, dtype=torch.int64), torch.zeros(2, 16, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"draws: expected positions in \[0, 20\)"):
        module(inputs, torch.zeros(20, dtype=torch.int64), torch.full((1, 16), 20))


def test_the_queue_wants_batches_that_divide_it() -> None:
    with pytest.raises(ValueError, match="divides the size of the queue, 24, got 5"):
        nn.QueueContrast(DIM, 24)(rows(5), rows(5))


def test_the_online_term_wants_enough_proxies() -> None:
    memory = nn.ProxyMemory.o2cap(DIM, num_negatives=16)
    memory.fill(rows(18), *PROXIES)
    with pytest.raises(ValueError, match="features: expected at least 19 proxies"):
        memory(rows(BATCH), TARGETS, CAMERAS)
    with pytest.raises(ValueError, match="call fill first"):
        nn.ProxyMemory.cap(DIM)(rows(BATCH), TARGETS, CAMERAS)
    with pytest.raises(ValueError, match="two of the same"):
        memory.fill(rows(3), torch.tensor([0, 1, 0]), torch.tensor([2, 2, 2]))


def test_a_sample_without_a_proxy_is_named() -> None:
    memory = proxies(nn.ProxyMemory.cap)
    with pytest.raises(ValueError, match="got none for label 3 and camera 9 at position 1"):
        memory(rows(2), torch.tensor([0, 3]), torch.tensor([0, 9]))


def test_ties_go_to_the_lower_index() -> None:
    from ccfast.nn._choice import argmin_of_rows, best_columns, last_columns

    scores = torch.tensor([[1.0, 2, 2, 2, 0], [5, 5, 5, 5, 5]])
    everywhere = torch.ones(5, dtype=torch.bool)
    assert best_columns(scores, 2, everywhere).long().tolist() == [[0, 1, 1, 0, 0], [1, 1, 0, 0, 0]]
    assert best_columns(scores, 2, torch.tensor([True, False, False, True, True])).long().tolist() == [
        [1, 0, 0, 1, 0],
        [1, 0, 0, 1, 0],
    ]
    assert best_columns(scores, 4, everywhere & (scores > 1)).long().tolist() == [[0, 1, 1, 1, 0], [1, 1, 1, 1, 0]]
    assert argmin_of_rows(scores, scores > 1).tolist() == [1, 0]
    assert last_columns(scores > 1, torch.tensor([2, 0])).long().tolist() == [[0, 0, 1, 1, 0], [0] * 5]


def test_supcon_without_labels_is_simclr_and_noise_is_left_out(backend: Backend) -> None:
    features = backend(rows(10).view(5, 2, DIM)).requires_grad_()
    loss = nn.SupConLoss()
    torch.testing.assert_close(loss(features), loss(features, backend(torch.arange(5))))
    labels = backend(torch.tensor([0, -1, 0, 1, 1]))
    found = loss(features, labels)
    torch.testing.assert_close(found, loss(features[[0, 2, 3, 4]], labels[labels >= 0]))
    found.backward()
    assert not features.grad[1].any()
    with pytest.raises(ValueError, match="at most one of them"):
        loss(features, labels, torch.ones(5, 5))


def test_swapped_assignment_uses_its_queue_when_it_is_full(backend: Backend) -> None:
    module = nn.SwappedAssignment(7, DIM, queue_length=10).to(backend.device)
    used = []
    for step in range(4):
        module(backend(rows(8, seed=step)).requires_grad_(), 2).backward()
        used.append(bool(module.queue_in_use))
    assert used == [False, False, False, True]
    module.start_epoch()
    assert not module.queue_in_use
    before = module.queue.clone()
    module.eval()(backend(rows(8)), 2)
    assert torch.equal(module.queue, before)
    with pytest.raises(ValueError, match="a multiple of 3 rows"):
        module(rows(8), 3)


def test_two_passes_before_one_backward_of_swapped_assignment() -> None:
    module = nn.SwappedAssignment(7, DIM)
    losses = [module(rows(8, seed=seed).requires_grad_(), 2) for seed in (0, 1)]
    sum(losses).backward()
    assert torch.isfinite(module.prototypes.grad).all()


def test_labels_of_an_epoch_are_read_again_when_they_change() -> None:
    memory = hybrid(update="forward").eval()
    inputs = rows(3)
    first = memory(inputs, torch.tensor([0, 1, 2]))
    memory.labels.copy_(torch.arange(20))
    changed = memory(inputs, torch.tensor([0, 1, 2]))
    memory.labels = torch.zeros(20, dtype=torch.int64)
    assert first != changed and abs(float(memory(inputs, torch.tensor([0, 1, 2])))) < 1e-5


def test_relabelling_needs_a_cluster() -> None:
    with pytest.raises(ValueError, match="at least one cluster with more than one image"):
        hybrid().relabel(*[torch.full((20,), -1)] * 3)


def test_average_of_other_parameters_is_refused() -> None:
    with pytest.raises(ValueError, match="parameters of the same shapes"):
        nn.update_average_(torch.nn.Linear(2, 3), torch.nn.Linear(3, 2))


def test_states_are_float32_with_any_default_dtype() -> None:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        modules = [
            nn.CameraMemory(4, 3),
            nn.DualMemory(4, 3),
            nn.HybridMemory(4, 3),
            nn.InstanceBank(4, 3),
            nn.InstanceMemory(4, 3, 2),
            nn.ProxyMemory(4),
            nn.QueueContrast(4, 8),
        ]
    finally:
        torch.set_default_dtype(before)
    for module in modules:
        for name, buffer in module.named_buffers():
            assert buffer.dtype is torch.float32 or not buffer.is_floating_point(), (type(module).__name__, name)


UNIT_ROWS: dict[str, Callable[[], tuple[Any, tuple[Any, ...]]]] = {
    "DualMemory": lambda: (filled(nn.DualMemory.hhcl(DIM, CLUSTERS)), (TARGETS,)),
    "HybridMemory": lambda: (filled(nn.HybridMemory(DIM, 20)), (TARGETS,)),
    "InstanceMemory": lambda: (filled(nn.InstanceMemory(DIM, CLUSTERS, 3, centroid=True, normalize=False)), (TARGETS,)),
    "CameraMemory": lambda: (filled(nn.CameraMemory(DIM, CLUSTERS, normalize=False)), (TARGETS, CAMERAS)),
    "ProxyMemory": lambda: (proxies_of_unit_rows(), (TARGETS, CAMERAS)),
    "InstanceBank": lambda: (filled(nn.InstanceBank(DIM, 20)), (TARGETS,)),
}


def proxies_of_unit_rows() -> nn.ProxyMemory:
    memory = nn.ProxyMemory.cap(DIM, num_negatives=5)
    memory.fill(rows(PROXIES.shape[1], seed=1), *PROXIES)
    return memory


@pytest.mark.parametrize("name", UNIT_ROWS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("update", ["forward", "backward"])
def test_unit_rows_in_half_precision_update_the_state(
    backend: Backend, name: str, dtype: torch.dtype, update: str
) -> None:
    module, arguments = UNIT_ROWS[name]()
    module, module.update = module.to(backend.device), update
    before = module.features.clone()
    inputs = backend(rows(BATCH)).to(dtype).requires_grad_()  # of unit norm within the precision of the dtype
    module(inputs, *map(backend, arguments)).backward()
    assert torch.isfinite(inputs.grad).all() and not torch.equal(module.features, before)
    torch.testing.assert_close(module.features.norm(dim=1), torch.ones_like(before[:, 0]), rtol=0, atol=1e-2)


def test_labels_that_are_assigned_twice_are_counted_again(backend: Backend) -> None:
    module, inputs = hybrid().to(backend.device), backend(rows(BATCH))
    for classes in (2, 3, 2, 7, 4) * 4:
        module.labels = backend(torch.zeros(20, dtype=torch.int64))
        module.labels = backend(torch.arange(20) % classes)  # it may take the memory, and the id, of the one before
        assert module._segments() == classes
        module(inputs, backend(torch.arange(BATCH)))


def test_the_centroids_of_ice_are_in_the_state_dict(backend: Backend) -> None:
    module, other = nn.IceLoss(DIM).to(backend.device), nn.IceLoss(DIM).to(backend.device)
    centroids, proxies = backend(rows(CLUSTERS)), backend(rows(PROXIES.shape[1]))
    module.fill(centroids, proxies, *map(backend, PROXIES))
    other.load_state_dict(module.state_dict())
    views = [backend(rows(BATCH, seed=seed)) for seed in (2, 3, 4)]
    arguments = (*views, backend(TARGETS), backend(CAMERAS))
    assert torch.equal(other.losses(*arguments), module.losses(*arguments))


def test_samples_without_a_prototype_are_left_out(backend: Backend) -> None:
    module = nn.PrototypeContrast(DIM, 30).to(backend.device).eval()
    assignments, centroids = torch.tensor([0, 1, 2, -1]), rows(3)
    module.fill(*([backend(each)] for each in (assignments, centroids, torch.full((3,), 0.2))))
    queries, keys, indexes = backend(rows(5, seed=1)), backend(rows(5, seed=2)), torch.tensor([0, -1, 2, 3, 1])
    of_moco = module(queries, keys)
    found = module(queries, keys, backend(indexes)) - of_moco
    counted = [0, 2, 4]  # image -1 and image 3 have no prototype
    alone = queries[counted], keys[counted], backend(indexes[counted])
    torch.testing.assert_close(found, module(*alone) - module(*alone[:2]), rtol=0, atol=1e-6)
    assert torch.equal(module(queries, keys, torch.full_like(backend(indexes), -1)), of_moco)


def test_wrong_images_assignments_and_mappings_are_named() -> None:
    module = nn.PrototypeContrast(DIM, 8)
    with pytest.raises(ValueError, match=r"assignments: expected labels in \[0, 2\) or -1 .* got 2 at position 1"):
        module.fill([torch.tensor([0, 2])], [rows(2)], [torch.ones(2)])
    module.fill([torch.tensor([0, 1])], [rows(2)], [torch.ones(2)])
    with pytest.raises(ValueError, match=r"indexes: expected labels in \[0, 2\) or -1 .* got 9 at position 0"):
        module(rows(1), rows(1), torch.tensor([9]))
    memory = nn.CrossModalMemory(DIM, 3, 2)
    with pytest.raises(ValueError, match="mapping: expected an entry for each of the 3 clusters, got 1"):
        memory.losses(
            *(rows(2), rows(2), torch.tensor([0, 2]), torch.tensor([0, 1])), cross="infrared", mapping=torch.tensor([1])
        )
