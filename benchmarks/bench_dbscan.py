"""DBSCAN on Jaccard distances."""

from __future__ import annotations

import ccfast
from benchmarks import differences, inputs, peers, peers_cuda, stages
from benchmarks.bench_jaccard import SIZES, dense_bytes, dense_work
from benchmarks.bench_knn import work as search
from benchmarks.case import Case
from benchmarks.inputs import clustered_features, feature_bytes, feature_sizes, neighbour_statistics, neighbours
from benchmarks.peaks import Work


def _sparse(N: int, D: int, k1: int, k2: int, eps: float) -> tuple:
    return stages.sparse_jaccard(clustered_features(N, D), *neighbours(N, D, k1), k2, eps), eps


def _dense(N: int, D: int, k1: int, k2: int, eps: float) -> tuple:
    return stages.dense_jaccard(clustered_features(N, D), *neighbours(N, D, k1), k2), eps


def _sparse_work(N: int, **_) -> Work:
    """Row starts and labels, and the diagonal at least."""
    return Work(bytes=28.0 * N)


def cases(preset: str) -> list[Case]:
    return [case for sizes in feature_sizes(SIZES[preset]) for case in _cases(sizes)]


def _cases(sizes: dict) -> list[Case]:
    common = {
        "op": "dbscan",
        "sizes": sizes,
        "providers": {
            "ccfast": ccfast.dbscan,
            "reference": ccfast.reference.dbscan,
            "scikit-learn": peers.scikit_learn_dbscan,
        },
        "difference": differences.labels,
        "truth": "scikit-learn",
        "facts": neighbour_statistics,
        "inputs_work": search,
    }
    sparse = {"work": _sparse_work, "inputs_bytes": feature_bytes, "growth": lambda N, **_: float(N)}
    dense = {"work": dense_work, "inputs_bytes": dense_bytes, "growth": lambda N, **_: float(N) * N}
    others, missing = peers_cuda.clusterings() if inputs.on_cuda() else ({}, {})
    dense |= {
        "providers": common["providers"] | others,
        "missing": missing,
        # A point on the border of two clusters may belong to either, depending on the implementation.
        "difference_of": {"cuML": differences.partition},
        "allowed_to": {"cuML": 0.01},
        "own_memory": frozenset({"cuML"}),
    }
    return [
        Case(name="dbscan on sparse distances", inputs=_sparse, **sparse, **common),
        Case(name="dbscan on dense distances", inputs=_dense, **{**common, **dense}),
    ]


def test_dbscan(bench) -> None:
    bench()
