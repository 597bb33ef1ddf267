"""Tests that need a GPU: streams, a second device, CUDA graphs, no synchronisation in a training step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from sample_inputs import clustered, memory_batch, retrieval_case, to_csr
from torch import Tensor

import ccfast

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.skipif(ccfast.build_info()["cuda"] is None, reason="ccfast was built without CUDA (CCFAST_CUDA)"),
]


def near(features: Tensor) -> Tensor:
    return (1 - features @ features.T).clamp_min(0)


def training_step(features: Tensor, memory: Tensor, labels: Tensor, mode: str = "sequential") -> Tensor:
    """Loss and gradient with the old memory, then the update of the memory; nothing reads a value on the host."""
    x = features.detach().requires_grad_()
    ccfast.centroid_contrastive_loss(x, memory, labels, 0.05, label_smoothing=0.1).backward()
    ccfast.update_memory_(memory, F.normalize(features, dim=1), labels, 0.1, mode)
    return x.grad


#: Each takes unit features on a device and returns dense tensors.
OPS: dict[str, Callable[[Tensor], list[Tensor]]] = {
    "knn": lambda x: list(ccfast.knn(x, 20)),
    "knn fp16": lambda x: list(ccfast.knn(x, 20, queries=x[:30], precision="fp16")),
    "k_reciprocal_encoding": lambda x: [ccfast.k_reciprocal_encoding(x, 20, 6).to_dense()],
    "jaccard_distance": lambda x: [ccfast.jaccard_distance(x, 20, 6)],
    "jaccard_distance sparse": lambda x: [ccfast.jaccard_distance(x, 20, 6, max_distance=0.6).to_dense()],
    "dbscan": lambda x: [ccfast.dbscan(near(x), 0.3)],
    "dbscan sparse": lambda x: [ccfast.dbscan(to_csr(near(x).cpu(), near(x).cpu() <= 0.4).to(x.device), 0.3)],
    "cluster_centroids": lambda x: [ccfast.cluster_centroids(x, torch.arange(len(x), device=x.device) % 7)],
    "training step": lambda x: [training_step(x[10:], x[:10].clone(), torch.arange(len(x) - 10, device=x.device) % 10)],
    "k_reciprocal_rerank": lambda x: [ccfast.k_reciprocal_rerank(x[:50], x[50:], 20, 6)],
    "evaluate_ranking": lambda x: [ccfast.evaluate_ranking(*(value.to(x.device) for value in retrieval_case())).cmc],
}


@pytest.fixture
def features() -> Tensor:
    return clustered(400)[0].cuda()


@contextmanager
def no_synchronisation() -> Iterator[None]:
    """Any synchronisation by torch raises an error."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", OPS)
def test_work_goes_to_the_current_stream(features: Tensor, name: str) -> None:
    want = OPS[name](features)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        # This stream writes the input late: an op on another stream would read it too early.
        late = torch.zeros_like(features)
        torch.cuda._sleep(50_000_000)
        late.copy_(features)
        found = OPS[name](late)
    stream.synchronize()
    for ours, theirs in zip(found, want, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
@pytest.mark.parametrize("name", OPS)
def test_tensors_of_another_device_than_the_current_one(features: Tensor, name: str) -> None:
    want = OPS[name](features)
    found = OPS[name](features.to("cuda:1"))
    assert torch.cuda.current_device() == 0
    for ours, theirs in zip(found, want, strict=True):
        assert ours.device == torch.device("cuda:1")
        torch.testing.assert_close(ours.cpu(), theirs.cpu(), rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
def test_two_cuda_devices_in_one_call_are_refused(features: Tensor) -> None:
    with pytest.raises(ValueError, match="one device"):
        ccfast.knn(features, 3, queries=features.to("cuda:1"))


def test_host_and_cuda_in_one_call_are_refused(features: Tensor) -> None:
    memory, batch, labels = memory_batch()
    for call in (
        lambda: ccfast.knn(features, 3, queries=features.cpu()),
        lambda: ccfast.update_memory_(memory.cuda(), batch.cuda(), labels),
        lambda: ccfast.centroid_contrastive_loss(batch.cuda(), memory, labels.cuda()),
    ):
        with pytest.raises(ValueError, match="one device"):
            call()


@pytest.mark.parametrize("mode", ["sequential", "hardest", "mean"])
def test_a_training_step_does_not_wait_for_the_gpu(mode: str) -> None:
    memory, features, labels = (value.cuda() for value in memory_batch())
    training_step(features, memory, labels, mode)  # the first call may load kernels
    with no_synchronisation():
        training_step(features, memory, labels, mode)


@pytest.mark.parametrize("mode", ["sequential", "hardest", "mean"])
def test_a_training_step_can_be_captured_in_a_cuda_graph(mode: str) -> None:
    memory, features, labels = (value.cuda() for value in memory_batch())
    other = [value.cuda() for value in memory_batch(seed=1)]
    expected = memory.clone()
    want = [training_step(features, expected, labels, mode), training_step(other[1], expected, other[2], mode)]

    static = [memory.clone(), features.clone(), labels.clone()]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # warm-up, which capture requires
        training_step(static[1], static[0].clone(), static[2], mode)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        gradient = training_step(static[1], static[0], static[2], mode)
    static[0].copy_(memory)
    for step, (rows, targets) in enumerate([(features, labels), (other[1], other[2])]):
        static[1].copy_(rows)
        static[2].copy_(targets)
        graph.replay()
        torch.testing.assert_close(gradient, want[step], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(static[0], expected, rtol=0, atol=2e-6)


def test_labels_out_of_range_on_cuda_write_nothing_out_of_bounds() -> None:
    # A training step does not check values before it runs, but it must not write out of bounds.
    store = torch.full((3, 12, 48), 7.0, device="cuda")
    memory, features, labels = (value.cuda() for value in memory_batch())
    store[1] = memory
    labels[5], labels[9] = 12, -7
    try:
        ccfast.update_memory_(store[1], features, labels, 0.1)
        torch.cuda.synchronize()
    except ValueError:
        pass
    assert (store[0] == 7).all() and (store[2] == 7).all()


def test_results_on_cuda_are_those_of_the_cpu(features: Tensor) -> None:
    for name, function in OPS.items():
        for ours, theirs in zip(function(features), function(features.cpu()), strict=True):
            torch.testing.assert_close(
                ours.cpu(), theirs, rtol=1e-5, atol=2e-6, msg=lambda text, name=name: f"{name}: {text}"
            )
