"""DBSCAN on Jaccard distances."""

from __future__ import annotations

import ccfast
from benchmarks import differences, peers, stages
from benchmarks.bench_jaccard import SIZES
from benchmarks.case import Case
from benchmarks.inputs import clustered_features, neighbour_statistics, neighbours


def _sparse(N: int, D: int, k1: int, k2: int, eps: float) -> tuple:
    return stages.sparse_jaccard(clustered_features(N, D), *neighbours(N, D, k1), k2, eps), eps


def _dense(N: int, D: int, k1: int, k2: int, eps: float) -> tuple:
    return stages.dense_jaccard(clustered_features(N, D), *neighbours(N, D, k1), k2), eps


def cases(preset: str) -> list[Case]:
    common = {
        "op": "dbscan",
        "sizes": SIZES[preset],
        "providers": {
            "ccfast": ccfast.dbscan,
            "reference": ccfast.reference.dbscan,
            "scikit-learn": peers.scikit_learn_dbscan,
        },
        "difference": differences.labels,
        "truth": "scikit-learn",
        "facts": neighbour_statistics,
    }
    return [
        Case(name="dbscan on sparse distances", inputs=_sparse, **common),
        Case(name="dbscan on dense distances", inputs=_dense, **common),
    ]


def test_dbscan(bench) -> None:
    bench()
