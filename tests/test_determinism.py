"""Every op gives the same bits in two runs and, except for products that torch splits, with any number of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from conftest import Backend
from sample_inputs import clustered, duplicates, memory_batch, retrieval_case, signs, to_csr
from torch import Tensor

import ccfast

# Large enough for several threads and several tiles of a matrix product.
FEATURES = clustered(2100, dim=48, identities=150, noise=0.9)[0]


def step(mode: str) -> Callable[[Backend], list[Tensor]]:
    """A training step: loss, both gradients and the updated memory."""

    def run(backend: Backend) -> list[Tensor]:
        memory, features, labels = memory_batch(clusters=300, dim=200, batch=512)
        memory, features, labels = backend(memory, 2 * features, labels)
        features.requires_grad_()
        learned = memory.clone().requires_grad_()
        loss = ccfast.centroid_contrastive_loss(features, learned, labels)
        loss.backward()
        ccfast.update_memory_(memory, (features / 2).detach(), labels, 0.1, mode)
        return [loss.detach(), features.grad, learned.grad, memory]

    return run


def update(mode: str) -> Callable[[Backend], list[Tensor]]:
    """The updated memory alone."""

    def run(backend: Backend) -> list[Tensor]:
        memory, features, labels = backend(*memory_batch(clusters=300, dim=200, batch=512))
        groups = labels * 7 % 5 if mode.startswith("group") else None
        ccfast.update_memory_(memory, features, labels, 0.1, mode, groups=groups)
        return [memory]

    return run


def parts(result: object) -> list[Tensor]:
    if isinstance(result, Tensor) and result.layout is torch.sparse_csr:
        return [result.crow_indices(), result.col_indices(), result.values()]
    values = result if isinstance(result, tuple) else (result,)
    return [value if isinstance(value, Tensor) else torch.tensor(value) for value in values]


def labels_of_a_sparse_matrix(backend: Backend) -> list[Tensor]:
    distances = (1 - FEATURES[:1500] @ FEATURES[:1500].T).clamp_min(0)
    return [ccfast.dbscan(backend(to_csr(distances, distances <= 0.5)), 0.45, 4)]


def set_loss(backend: Backend) -> list[Tensor]:
    """Loss and gradient over masks."""
    logits = backend(FEATURES[:300] @ FEATURES.T / 0.07).requires_grad_()
    positives = backend(torch.arange(2100) % 7 == (torch.arange(300) % 7)[:, None])
    losses = ccfast.set_contrastive_loss(logits, positives, multiplicity=1 + positives.int())
    losses.sum().backward()
    return [losses.detach(), logits.grad]


def means_of_segments(backend: Backend) -> list[Tensor]:
    similarities = backend(FEATURES[:300] @ FEATURES.T).requires_grad_()
    means, present = ccfast.segment_mean(similarities, backend(torch.arange(2100) % 501), 600)
    means.square().sum().backward()
    return [means.detach(), present, similarities.grad]


OPS: dict[str, Callable[[Backend], list[Tensor]]] = {
    "segment_mean": means_of_segments,
    "set_contrastive_loss": set_loss,
    "sinkhorn": lambda b: [ccfast.sinkhorn(b(FEATURES))],
    **{
        f"knn {precision}": lambda b, p=precision: parts(ccfast.knn(b(FEATURES), 30, precision=p))
        for precision in ("fp32", "fp16", "bf16")
    },
    "knn of ties": lambda b: parts(ccfast.knn(b(signs(1500)), 30)),
    "knn of queries": lambda b: parts(ccfast.knn(b(FEATURES[500:]), 20, queries=b(FEATURES[:500]))),
    "k_reciprocal_encoding": lambda b: parts(ccfast.k_reciprocal_encoding(b(FEATURES))),
    "jaccard_distance": lambda b: parts(ccfast.jaccard_distance(b(FEATURES))),
    "jaccard_distance sparse": lambda b: parts(ccfast.jaccard_distance(b(FEATURES), max_distance=0.6)),
    "jaccard_distance of duplicates": lambda b: parts(ccfast.jaccard_distance(b(duplicates(900)), 20, 4)),
    "dbscan": lambda b: [ccfast.dbscan((1 - b(FEATURES[:1500]) @ b(FEATURES[:1500]).T).clamp_min(0), 0.45, 4)],
    "dbscan sparse": labels_of_a_sparse_matrix,
    "cluster_centroids": lambda b: [ccfast.cluster_centroids(b(FEATURES), b(torch.arange(2100) % 11))],
    "step sequential": step("sequential"),
    "step hardest": step("hardest"),
    "step mean": step("mean"),
    **{
        f"update {mode}": update(mode)
        for mode in (
            *("sequential", "hardest", "mean", "last", "replace"),
            *("group_first", "group_hardest", "group_mean", "group_harmonic"),
        )
    },
    "k_reciprocal_rerank": lambda b: parts(ccfast.k_reciprocal_rerank(b(FEATURES[:300]), b(FEATURES[300:1800]))),
    "evaluate_ranking": lambda b: parts(ccfast.evaluate_ranking(*b(*retrieval_case(300, 900, levels=40)))),
}


@pytest.fixture(autouse=True)
def _restore_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def assert_same_bits(found: list[Tensor], want: list[Tensor]) -> None:
    for ours, theirs in zip(found, want, strict=True):
        assert ours.dtype == theirs.dtype and torch.equal(ours, theirs)


@pytest.mark.parametrize("name", OPS)
def test_two_runs_give_the_same_bits(backend: Backend, name: str) -> None:
    torch.set_num_threads(2)
    assert_same_bits(OPS[name](backend), OPS[name](backend))


#: Torch computes products with the memory and may split them over threads: the last bits may differ.
BY_TORCH = [name for name in OPS if name.startswith("step")]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in OPS if name not in BY_TORCH])
def test_any_number_of_threads_gives_the_same_bits(backend: Backend, name: str) -> None:
    if backend.name == "emulated":
        pytest.skip("the emulation runs one thread of the host")
    torch.set_num_threads(1)
    want = OPS[name](backend)
    for threads in (2, 3, 4, 8):
        torch.set_num_threads(threads)
        assert_same_bits(OPS[name](backend), want)


@pytest.mark.parametrize("name", BY_TORCH)
def test_any_number_of_threads_gives_the_same_step_to_the_last_bits(backend: Backend, name: str) -> None:
    torch.set_num_threads(1)
    want = OPS[name](backend)
    for threads in (2, 3, 4, 8):
        torch.set_num_threads(threads)
        *found, memory = OPS[name](backend)
        assert torch.equal(memory, want[-1])
        for ours, theirs in zip(found, want[:-1], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6 * float(theirs.abs().max()))


def test_results_do_not_depend_on_the_other_rows_of_the_batch(backend: Backend) -> None:
    # The neighbours, distances and loss of a row do not depend on where tiles and threads split the rows.
    features = backend(FEATURES)
    whole = ccfast.knn(features, 20)
    assert_same_bits([part[:700] for part in whole], list(ccfast.knn(features, 20, queries=features[:700])))


def test_inputs_are_left_alone(backend: Backend) -> None:
    features, copy = backend(FEATURES[:400]), backend(FEATURES[:400]).clone()
    ccfast.knn(features, 5)
    distances = ccfast.jaccard_distance(features, 10, 3)
    before = distances.clone()
    ccfast.dbscan(distances, 0.5)
    ccfast.k_reciprocal_rerank(features[:100], features[100:], 10, 3)
    assert torch.equal(features, copy) and torch.equal(distances, before)
