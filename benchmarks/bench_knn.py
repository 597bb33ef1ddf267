"""Exact k nearest neighbours."""

from __future__ import annotations

import ccfast
from benchmarks import differences, peers
from benchmarks.case import Case
from benchmarks.inputs import clustered_features

SIZES = {"quick": {"N": 2000, "D": 256, "k": 30}, "full": {"N": 12936, "D": 2048, "k": 30}}


def cases(preset: str) -> list[Case]:
    return [
        Case(
            op="knn",
            name="knn",
            sizes=SIZES[preset],
            inputs=lambda N, D, k: (clustered_features(N, D), k),
            providers={
                "ccfast": lambda x, k: ccfast.knn(x, k)[0],
                "ccfast, bf16 candidates": lambda x, k: ccfast.knn(x, k, precision="bf16")[0],
                "reference": lambda x, k: ccfast.reference.knn(x, k)[0],
                "eager torch": peers.knn_by_topk,
            },
            difference=differences.share_of_rows,
            allowed_to={"eager torch": 0.01},  # float32 products may swap near ties; ccfast must not
        )
    ]


def test_knn(bench) -> None:
    bench()
