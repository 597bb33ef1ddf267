"""Exact k nearest neighbours."""

from __future__ import annotations

from torch import Tensor

import ccfast
from benchmarks import differences, inputs, peers, peers_cuda
from benchmarks.case import Case
from benchmarks.inputs import clustered_features, feature_bytes, feature_sizes, neighbour_statistics
from benchmarks.peaks import Work
from ccfast.check import eager

SIZES = {
    "quick": [{"N": 2000, "D": 256, "k": 30}],
    "full": [{"N": N, "D": D, "k": 30} for D in (768, 2048) for N in (3000, 12_936, 32_621, 100_000, 1_000_000)],
}


def work(N: int, D: int, **_) -> Work:
    """Half of the products, which are symmetric, in the fastest type that leads to an exact answer; features read."""
    return Work(bytes=4.0 * N * D, flops=float(N) * N * D, product="bfloat16")


def growth(N: int, D: int, **_) -> float:
    """Products."""
    return float(N) * N * D


def _oracle(features: Tensor, k: int) -> Tensor:
    return ccfast.reference.knn(features, k, queries=features[differences.sampled_rows(len(features))])[0]


def cases(preset: str) -> list[Case]:
    providers = {
        "ccfast": lambda x, k: ccfast.knn(x, k)[0],
        "ccfast, fp16 candidates": lambda x, k: ccfast.knn(x, k, precision="fp16")[0],
        "reference": lambda x, k: ccfast.reference.knn(x, k)[0],
        "eager torch": eager.knn,
        "eager torch, bf16": peers.knn_by_topk_half,
    }
    others, missing = peers_cuda.searches() if inputs.on_cuda() else peers.searches()
    return [
        Case(
            op="knn",
            name="knn",
            sizes=sizes,
            inputs=lambda N, D, k: (clustered_features(N, D), k),
            providers=providers | others,
            difference=differences.share_of_sampled_rows,
            # Products in float32 may swap near ties, those in bfloat16 miss neighbours; ccfast must do neither.
            allowed_to={"eager torch": 0.05, "faiss": 0.05, "cuVS": 0.05, "eager torch, bf16": 0.1},
            difference_of={"eager torch, bf16": differences.share_of_neighbours},
            truth=_oracle,
            facts=lambda N, D, k: neighbour_statistics(N, D),
            work=work,
            inputs_bytes=feature_bytes,
            growth=growth,
            missing=missing,
            own_memory=frozenset({"faiss", "cuVS"}) if inputs.on_cuda() else frozenset(),
        )
        for sizes in feature_sizes(SIZES[preset])
    ]


def test_knn(bench) -> None:
    bench()
