"""torch.compile captures the public functions of static output shape in one graph and gives eager's results."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import Backend
from sample_inputs import clustered, memory_batch, symmetric_distances
from torch import Tensor

import ccfast


@pytest.fixture(autouse=True)
def _fresh_compiler() -> None:
    torch.compiler.reset()


def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    return torch.compile(function, fullgraph=True, backend="aot_eager", **options)


FUNCTIONS: dict[str, tuple[Callable[..., Any], Callable[[], tuple[Tensor, ...]]]] = {
    "knn": (lambda x: ccfast.knn(x, 7), lambda: (clustered(60)[0],)),
    "knn of queries": (lambda x, q: ccfast.knn(x, 7, queries=q), lambda: (clustered(60)[0], clustered(9)[0])),
    "jaccard_distance": (lambda x: ccfast.jaccard_distance(x, 15, 4), lambda: (clustered(60)[0],)),
    "dbscan": (lambda d: ccfast.dbscan(d, 0.4, 3), lambda: (symmetric_distances(),)),
    "k_reciprocal_rerank": (
        lambda q, g: ccfast.k_reciprocal_rerank(q, g, 10, 3),
        lambda: (clustered(12)[0], clustered(50, seed=1)[0]),
    ),
    "a pipeline": (
        lambda x: ccfast.dbscan(ccfast.jaccard_distance(torch.nn.functional.normalize(x), 15, 4), 0.5) + 1,
        lambda: (3 * clustered(60)[0],),
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_compiled_functions_give_the_results_of_eager(backend: Backend, name: str) -> None:
    function, inputs = FUNCTIONS[name]
    arguments = [backend(value) for value in inputs()]
    found, want = compiled(function)(*arguments), function(*arguments)
    for ours, theirs in zip(*(part if isinstance(part, tuple) else (part,) for part in (found, want)), strict=True):
        assert torch.equal(ours, theirs) and ours.stride() == theirs.stride()


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_the_compiled_loss_and_its_gradients_are_those_of_eager(
    backend: Backend, reduction: str, dynamic: bool
) -> None:
    def loss(features: Tensor, memory: Tensor, labels: Tensor) -> Tensor:
        return ccfast.centroid_contrastive_loss(2 * features, memory, labels, reduction=reduction).sum() * 3

    results = []
    for function in (loss, compiled(loss, dynamic=dynamic)):
        memory, features, labels = backend(*memory_batch())
        features.requires_grad_(), memory.requires_grad_()
        value = function(features, memory, labels)
        value.backward()
        results.append((value.detach(), features.grad, memory.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.slow
def test_the_backward_pass_may_be_compiled_as_it_runs(backend: Backend) -> None:
    memory, features, labels = backend(*memory_batch())
    gradients = []
    for config in (False, True):
        x = features.clone().requires_grad_()
        with torch._dynamo.config.patch(compiled_autograd=config):
            torch.compile(lambda x: ccfast.centroid_contrastive_loss(x, memory, labels).backward(), backend="eager")(x)
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


@pytest.mark.slow
def test_the_compiled_loss_with_all_its_extras_is_that_of_eager(backend: Backend) -> None:
    memory, features, labels = backend(*memory_batch())
    targets = torch.nn.functional.one_hot(labels.clamp_min(0), len(memory)).float()
    mask, weights, temperatures = targets > -1, labels.float() + 2, 0.1 + torch.rand_like(memory[:, 0])

    def loss(features: Tensor, memory: Tensor) -> Tensor:
        options = {"mask": mask, "weights": weights}
        return ccfast.centroid_contrastive_loss(features, memory, targets, temperatures, **options)

    results = []
    for function in (loss, compiled(loss)):
        x, m = features.clone().requires_grad_(), memory.clone().requires_grad_()
        value = function(x, m)
        value.backward()
        results.append((value.detach(), x.grad, m.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "mode", ["sequential", "hardest", "mean", "last", "replace", "group_first", "group_mean", "group_harmonic"]
)
def test_the_compiled_update_changes_the_memory_of_the_caller(backend: Backend, mode: str) -> None:
    def update(memory: Tensor, features: Tensor, labels: Tensor) -> Tensor:
        before = memory.sum()
        groups = labels % 3 if mode.startswith("group") else None
        ccfast.update_memory_(memory, features, labels, 0.1, mode, groups=groups)
        return memory.sum() - before

    memory, features, labels = backend(*memory_batch())
    want = memory.clone()
    difference = update(want, features, labels)
    found = compiled(update)(memory, features, labels)
    assert torch.equal(memory, want)
    torch.testing.assert_close(found, difference, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_compiled_training_step_of_the_module_is_that_of_eager(backend: Backend) -> None:
    rows, features, labels = backend(*memory_batch(clusters=8, dim=16, batch=20))
    results = []
    for wrap in (lambda module: module, compiled):
        memory = ccfast.nn.ClusterMemory(16, 8).to(backend.device)
        memory.features.copy_(rows)
        inputs = (2 * features).requires_grad_()
        run = wrap(memory)
        losses = [run(inputs, labels), run(inputs, labels)]
        sum(losses).backward()
        results.append((torch.stack(losses).detach(), inputs.grad, memory.features.clone()))
    assert results[0][0][0] != results[0][0][1], "the second step saw the updated memory"
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_sizes_may_change_without_a_new_graph_break(backend: Backend) -> None:
    run = compiled(lambda x: ccfast.knn(x, 4), dynamic=True)
    for rows in (20, 33, 50):
        features = backend(clustered(rows)[0])
        for ours, theirs in zip(run(features), ccfast.knn(features, 4), strict=True):
            assert torch.equal(ours, theirs)


def test_shapes_on_the_meta_device_need_no_data() -> None:
    features = torch.empty(30, 8, device="meta")
    indices, distances = ccfast.knn(features, 5)
    assert indices.shape == distances.shape == (30, 5)
    assert indices.dtype == torch.int64 and distances.dtype == torch.float32
    assert ccfast.jaccard_distance(features, 5, 2).shape == (30, 30)


@pytest.mark.slow
def test_the_import_of_ccfast_loads_no_compiler() -> None:
    script = "import sys, ccfast, ccfast.nn\nassert not {'torch._dynamo', 'sympy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
