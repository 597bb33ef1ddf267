"""Every op on small inputs, to count its cost and to run it under many orders.

A case takes the number of rows of its inputs and returns the output tensors of its op. Together the cases launch
every kernel of the project, most of them with each of their types.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

import ccfast
from tests import sample_inputs

Case = Callable[[int], Iterable[Tensor]]

OPS: dict[str, dict[str, Case]] = {}

#: Cases with a fixed size, too large to run under many orders.
LARGE = ("knn queries", "knn tiles", "knn tiles, float32 products")

#: Ops whose values are exact, or sums in one order without products, so that nvcc has nothing to fuse.
SAME_BITS = (
    "knn",
    "pair_distances",
    "jaccard_distance",
    "dbscan",
    "segment_mean",
    "enqueue_",
    "k_reciprocal_rerank",
    "evaluate_ranking",
)


def _case(op: str, name: str = "") -> Callable[[Case], Case]:
    def add(case: Case) -> Case:
        OPS.setdefault(op, {})[f"{op} {name}".strip()] = case
        return case

    return add


def _features(rows: int, dim: int = 64, noise: float = 0.7) -> Tensor:
    return sample_inputs.clustered(rows, dim, max(2, rows // 12), noise)[0]


@_case("knn")
def _(rows: int) -> Iterable[Tensor]:
    return ccfast.knn(_features(rows), min(30, rows))


@_case("knn", "ties")
def _(rows: int) -> Iterable[Tensor]:
    return ccfast.knn(sample_inputs.signs(rows), min(20, rows))


@_case("pair_distances")
def _(rows: int) -> Iterable[Tensor]:
    features = _features(rows, 37)
    indices = torch.randint(rows, (rows // 2, 11), generator=torch.Generator().manual_seed(0))
    return (torch.ops.ccfast.pair_distances(features[: rows // 2].contiguous(), features, indices),)


@_case("knn", "queries")
def _(rows: int) -> Iterable[Tensor]:  # three tiles of targets: the lists are full after the first
    return ccfast.knn(_features(8300, 8), 30, queries=_features(rows // 16, 8))


@_case("knn", "tiles")
def _(rows: int) -> Iterable[Tensor]:  # more rows than a tile has: entries below the diagonal are transposed
    return ccfast.knn(_features(2101, 8), 4)


@_case("knn", "tiles, float32 products")
def _(rows: int) -> Iterable[Tensor]:
    if not hasattr(torch.backends.cuda.matmul, "allow_fp16_accumulation"):  # torch before 2.7
        return ()
    try:
        torch.backends.cuda.matmul.allow_fp16_accumulation = True
        return ccfast.knn(_features(2060, 8), 1)
    finally:
        torch.backends.cuda.matmul.allow_fp16_accumulation = False


@_case("jaccard_distance", "sparse")
def _(rows: int) -> Iterable[Tensor]:
    sparse = ccfast.jaccard_distance(_features(rows), min(30, rows), min(6, rows), max_distance=0.6)
    return sparse.crow_indices(), sparse.col_indices(), sparse.values()


@_case("jaccard_distance", "dense")
def _(rows: int) -> Iterable[Tensor]:
    return (ccfast.jaccard_distance(_features(rows), min(20, rows), min(6, rows)),)


@_case("dbscan")
def _(rows: int) -> Iterable[Tensor]:
    distances = sample_inputs.symmetric_distances(rows)
    sparse = sample_inputs.to_csr(distances, distances < 0.5)
    return ccfast.dbscan(distances, 0.08, 3), ccfast.dbscan(sparse, 0.08, 3)


def _memory(rows: int, modes: tuple[str, ...], dims: tuple[int, ...]) -> list[Tensor]:
    outputs = []
    for dtype in (torch.float32, torch.float64):
        for dim in dims:
            for mode in modes:
                memory, features, labels = sample_inputs.memory_batch(12, dim, rows, dtype)
                groups = torch.arange(rows) % 3 if mode.startswith("group") else None
                ccfast.update_memory_(memory, features, labels, mode=mode, groups=groups)
                outputs.append(memory)
    return outputs


@_case("update_memory_")
def _(rows: int) -> Iterable[Tensor]:
    return _memory(rows // 4, ("sequential", "hardest", "mean"), (48, 37))


@_case("update_memory_", "chosen samples")
def _(rows: int) -> Iterable[Tensor]:
    return _memory(rows // 4, ("last", "group_first", "group_hardest", "group_mean", "group_harmonic"), (48, 37))


@_case("update_memory_", "long rows")
def _(rows: int) -> Iterable[Tensor]:
    return _memory(12, ("hardest", "group_harmonic"), (9001,))


@_case("cluster_centroids")
def _(rows: int) -> Iterable[Tensor]:
    labels = torch.arange(rows) % 7
    return [
        ccfast.cluster_centroids(_features(rows, dim).to(dtype), labels)
        for dtype in (torch.float32, torch.float64)
        for dim in (64, 37)
    ]


def _loss(rows: int, dtype: torch.dtype, dim: int, targets: bool) -> list[Tensor]:
    clusters = 51
    memory, features, labels = sample_inputs.memory_batch(clusters, dim, rows, torch.float64)
    features, memory = features.to(dtype), memory.to(torch.float64 if dtype == torch.float64 else torch.float32)
    if targets:
        generator = torch.Generator().manual_seed(1)
        labels = torch.softmax(torch.randn(rows, clusters, generator=generator, dtype=memory.dtype), dim=1)
    features.requires_grad_()
    loss = ccfast.centroid_contrastive_loss(features, memory, labels)
    (gradient,) = torch.autograd.grad(loss, features)
    return [loss.detach(), gradient]


@_case("centroid_contrastive_loss")
def _(rows: int) -> Iterable[Tensor]:
    dtypes = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
    return [out for dtype in dtypes for dim in (64, 37) for out in _loss(rows // 4, dtype, dim, False)]


@_case("centroid_contrastive_loss", "targets")
def _(rows: int) -> Iterable[Tensor]:
    dtypes = (torch.float32, torch.float64)
    return [out for dtype in dtypes for dim in (64, 37) for out in _loss(rows // 4, dtype, dim, True)]


@_case("segment_mean")
def _(rows: int) -> Iterable[Tensor]:
    outputs = []
    for dtype in (torch.float32, torch.float64):
        similarities = _features(rows, 90).to(dtype)[:40].requires_grad_()
        mean, counts = ccfast.segment_mean(similarities, torch.arange(90) % 8, 8)
        outputs += [mean.detach(), counts, *torch.autograd.grad(mean.square().sum(), similarities)]
    return outputs


@_case("set_contrastive_loss")
def _(rows: int) -> Iterable[Tensor]:
    outputs = []
    for dtype in (torch.float32, torch.float64):
        logits = (5 * _features(rows, 90)[:30]).to(dtype).requires_grad_()
        positives = torch.arange(90)[None, :] % 6 == torch.arange(30)[:, None] % 6
        loss = ccfast.set_contrastive_loss(logits, positives).sum()
        outputs += [loss.detach(), *torch.autograd.grad(loss, logits)]
    return outputs


@_case("enqueue_")
def _(rows: int) -> Iterable[Tensor]:
    outputs = []
    for dtype in (torch.float32, torch.float64):
        for pointer in (torch.tensor([90]), None):
            queue = torch.zeros(100, 24, dtype=dtype)
            ccfast.enqueue_(queue, pointer, _features(rows, 24)[:33].to(dtype))
            outputs += [queue] if pointer is None else [queue, pointer]
    return outputs


@_case("sinkhorn")
def _(rows: int) -> Iterable[Tensor]:
    return [ccfast.sinkhorn(_features(rows, 50)[:60].to(dtype)) for dtype in (torch.float32, torch.float64)]


@_case("k_reciprocal_rerank")
def _(rows: int) -> Iterable[Tensor]:
    features = _features(rows)
    return (ccfast.k_reciprocal_rerank(features[: rows // 4], features[rows // 4 :], min(20, rows // 4), 6),)


@_case("evaluate_ranking")
def _(rows: int) -> Iterable[Tensor]:
    outputs = []
    for dtype in (torch.float32, torch.float64):
        distances, *ids = sample_inputs.retrieval_case(20, rows, 9, levels=40)
        outputs += [torch.as_tensor(value) for value in ccfast.evaluate_ranking(distances.to(dtype), *ids)]
    return outputs


def names() -> list[str]:
    """Of all cases."""
    return [name for cases in OPS.values() for name in cases]
