"""torch.library.opcheck over every dispatcher op: schema, fake tensors, autograd registration, AOT dispatch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import Backend
from sample_inputs import clustered, memory_batch, retrieval_case, symmetric_distances, to_csr
from schemas import ops

import ccfast  # noqa: F401  (registers the ops)
from ccfast._arguments import GROUP_MODES

FEATURES, IDS = clustered(40, dim=8, identities=5)
K1, K2, HALF = 8, 3, 5


def csr_parts(matrix: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return matrix.crow_indices(), matrix.col_indices(), matrix.values()


def encoding() -> tuple[torch.Tensor, ...]:
    return tuple(torch.ops.ccfast.k_reciprocal_encoding(FEATURES, K1, 1))


def ranked() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.ops.ccfast.knn(FEATURES, None, K1, "fp32")


def reranking() -> tuple[torch.Tensor, ...]:
    return tuple(torch.ops.ccfast.rerank_encoding(FEATURES[:10], FEATURES[10:], 7, 3))


def loss_arguments(
    reduction: str = "mean", normalize: bool = True, grad: bool = True, dtype: torch.dtype = torch.float32
) -> tuple[Any, ...]:
    memory, features, labels = memory_batch(clusters=5, dim=8, batch=6, dtype=dtype)
    return features.requires_grad_(grad), memory.requires_grad_(grad), labels, 0.1, normalize, reduction, 0.1, -1, grad


def loss_with_extras(*, targets: bool = False, grad: bool = True) -> tuple[Any, ...]:
    features, memory, labels, *options = loss_arguments(grad=grad)
    mask = torch.ones(6, 5, dtype=torch.bool)
    mask[:, 3] = labels == 3
    labels = torch.rand(6, 5) * mask if targets else labels
    return features, memory, labels, *options, torch.rand(5) + 0.1, mask, torch.rand(6)


def update_with_groups(mode: str) -> tuple[Any, ...]:
    return *update_arguments(mode), None, torch.randint(3, (6,))


def update_arguments(mode: str, normalize: bool = False, dtype: torch.dtype = torch.float32) -> tuple[Any, ...]:
    return *memory_batch(clusters=5, dim=8, batch=6, dtype=dtype), 0.1, mode, normalize


def memory_grad_arguments(reduction: str) -> tuple[Any, ...]:
    upstream = torch.rand(6) if reduction == "none" else torch.rand(())
    return upstream, *loss_arguments(reduction, grad=False)[:-1]


def ranking(cameras: bool) -> tuple[Any, ...]:
    case = retrieval_case()
    return case if cameras else (*case[:3], None, None)


def sets(keep: bool = True, multiplicity: bool = True, grad: bool = True) -> tuple[Any, ...]:
    logits, positives = torch.randn(4, 7).requires_grad_(grad), torch.rand(4, 7) < 0.3
    return (
        logits,
        positives,
        torch.rand(4, 7) < 0.7 if keep else None,
        (torch.randint(3, (4, 7), dtype=torch.int32) if multiplicity else None),
    )


def sets_backward() -> tuple[Any, ...]:
    arguments = sets(grad=False)
    return torch.rand(4), *arguments, *torch.ops.ccfast.set_contrastive_loss(*arguments)[1:]


#: Name of the op: sets of arguments.
ARGUMENTS: dict[str, list[Callable[[], tuple[Any, ...]]]] = {
    "knn": [
        lambda: (FEATURES, None, 5, "fp32"),
        lambda: (FEATURES.half(), FEATURES[:3], 5, "fp16"),
        lambda: (FEATURES, FEATURES[:3].bfloat16(), 40, "bf16"),
    ],
    "pair_distances": [lambda: (FEATURES[:3].clone(), FEATURES, torch.randint(40, (3, 5)))],
    "squared_norms": [lambda: (FEATURES,), lambda: (FEATURES.T,)],
    "k_reciprocal_encoding": [lambda: (FEATURES, K1, K2), lambda: (FEATURES, K1, 1)],
    "jaccard_distance": [lambda: (FEATURES, K1, K2), lambda: (FEATURES, K1, 1)],
    "jaccard_distance_sparse": [lambda: (FEATURES, K1, K2, 0.5), lambda: (FEATURES, K1, 1, 0.0)],
    "encode_neighbours": [
        lambda: (FEATURES, *ranked(), HALF, None, None),
        lambda: (FEATURES, *ranked(), HALF, torch.rand(40), torch.rand(40)),
        lambda: (FEATURES, ranked()[0], ranked()[1][7:19], HALF, None, None, 7, 19),
        lambda: (FEATURES, *ranked(), HALF, None, None, 0, None, torch.arange(40)),
    ],
    "expand_queries": [lambda: (*encoding(), ranked()[0], K2), lambda: (*encoding(), ranked()[0][3:9], K2)],
    "sparse_jaccard": [lambda: (*encoding(), 0.5), lambda: (*encoding(), 0.5, 3, 9)],
    "dense_jaccard": [lambda: (*encoding(), 0, 40, 0, 40), lambda: (*encoding(), 3, 9, 11, 40)],
    "dbscan": [lambda: (symmetric_distances(), 0.3, 3), lambda: (symmetric_distances().double(), 0.3, 3)],
    "dbscan_sparse": [lambda: (*csr_parts(to_csr(symmetric_distances(), symmetric_distances() < 1)), 0.3, 3)],
    "cluster_centroids": [lambda: (FEATURES, IDS), lambda: (FEATURES.double(), IDS)],
    "update_memory_": [
        *[lambda mode=mode: update_arguments(mode) for mode in ("sequential", "hardest", "mean", "last", "replace")],
        *[lambda mode=mode: update_with_groups(mode) for mode in GROUP_MODES],
        lambda: (*update_arguments("hardest"), torch.rand(5, 8), None),
        lambda: update_arguments("sequential", normalize=True),
        lambda: update_arguments("hardest", dtype=torch.float64),
    ],
    "centroid_contrastive_loss": [
        *[lambda reduction=reduction: loss_arguments(reduction) for reduction in ("mean", "sum", "none")],
        lambda: loss_arguments(normalize=False),
        lambda: loss_arguments(grad=False),
        lambda: loss_arguments(dtype=torch.float64),
        lambda: loss_with_extras(),
        lambda: loss_with_extras(targets=True),
        lambda: loss_with_extras(targets=True, grad=False),
    ],
    "centroid_contrastive_loss_memory_grad": [
        lambda: memory_grad_arguments("mean"),
        lambda: memory_grad_arguments("none"),
        lambda: (
            torch.rand(()),
            *loss_with_extras(targets=True, grad=False)[:8],
            *loss_with_extras(targets=True)[9:],
        ),
    ],
    "segment_mean": [lambda: (FEATURES.T.clone().requires_grad_(), IDS, 5), lambda: (FEATURES.T.double(), IDS - 1, 5)],
    "segment_mean_backward": [lambda: (torch.rand(3, 5).requires_grad_(), IDS, IDS.bincount(minlength=5))],
    "set_contrastive_loss": [sets, lambda: sets(keep=False), lambda: sets(multiplicity=False)],
    "set_contrastive_loss_backward": [sets_backward],
    "enqueue_": [
        lambda: (torch.rand(6, 3), torch.tensor([5]), torch.rand(2, 3)),
        lambda: (torch.rand(6, 3), None, torch.rand(2, 3)),
    ],
    "sinkhorn_exp": [lambda: (FEATURES, 0.05), lambda: (FEATURES.double(), 0.05)],
    "sinkhorn_sums": [lambda: (FEATURES.exp(), torch.rand(8, dtype=torch.float64))],
    "sinkhorn_assign": [lambda: (FEATURES.exp(), torch.rand(8, dtype=torch.float64))],
    "k_reciprocal_rerank": [lambda: (FEATURES[:10], FEATURES[10:], 7, 3, 0.3)],
    "rerank_encoding": [lambda: (FEATURES[:10], FEATURES[10:], 7, 3)],
    "reranked_distances": [lambda: (*reranking(), 10, 0.3, 0, 10), lambda: (*reranking(), 10, 0.3, 3, 9)],
    "evaluate_ranking": [lambda: ranking(cameras=True), lambda: ranking(cameras=False)],
}
FLAT = [(op, index) for op, sets in ARGUMENTS.items() for index in range(len(sets))]


@pytest.mark.slow
@pytest.mark.parametrize("op, index", FLAT)
def test_opcheck(backend: Backend, op: str, index: int) -> None:
    def put(value: Any) -> Any:
        return backend(value).detach().requires_grad_(value.requires_grad) if isinstance(value, torch.Tensor) else value

    arguments = tuple(put(value) for value in ARGUMENTS[op][index]())
    results = torch.library.opcheck(getattr(torch.ops.ccfast, op).default, arguments)
    assert set(results.values()) == {"SUCCESS"}, results


def test_every_op_is_checked() -> None:
    assert set(ops()) == set(ARGUMENTS)
