"""k-reciprocal encoding and Jaccard distance, with known neighbours."""

from __future__ import annotations

from benchmarks import differences, peers, stages
from benchmarks.bench_knn import work as search
from benchmarks.case import Case
from benchmarks.inputs import clustered_features, feature_bytes, feature_sizes, neighbour_statistics, neighbours
from benchmarks.peaks import Work
from ccfast import reference

_COMMON = {"k1": 30, "k2": 6, "eps": 0.6}
SIZES = {
    "quick": [{"N": 2000, "D": 256, **_COMMON}],
    "full": [{"N": N, "D": 2048, **_COMMON} for N in (3000, 12_936, 32_621, 100_000)],
}


def sparse_work(N: int, k1: int, **_) -> Work:
    """The neighbours read, and at least as much again written and read between the stages."""
    return Work(bytes=24.0 * N * k1)


def dense_work(N: int, **_) -> Work:
    """The matrix written, or read."""
    return Work(bytes=4.0 * N * N)


def dense_bytes(N: int, **_) -> float:
    """The matrix; the answers to compare are as large again."""
    return 4.0 * N * N


def _inputs(N: int, D: int, k1: int, k2: int, eps: float) -> tuple:
    return clustered_features(N, D), neighbours(N, D, k1), k1, k2, eps


def cases(preset: str) -> list[Case]:
    return [case for sizes in feature_sizes(SIZES[preset]) for case in _cases(sizes)]


def _cases(sizes: dict) -> list[Case]:
    common = {
        "op": "jaccard",
        "sizes": sizes,
        "inputs": _inputs,
        "facts": neighbour_statistics,
        "inputs_work": search,
        "allowed": 1e-6,
    }
    sparse = {**common, "work": sparse_work, "inputs_bytes": feature_bytes, "growth": lambda N, **_: float(N)}
    dense = {**common, "work": dense_work, "inputs_bytes": dense_bytes, "growth": lambda N, **_: float(N) * N}
    after_knn = peers.reference_after_knn
    return [
        Case(
            name="k_reciprocal_encoding after kNN",
            providers={
                "ccfast": lambda x, given, k1, k2, eps: stages.encoding(x, *given, k2),
                "reference": lambda x, given, k1, k2, eps: after_knn(reference.k_reciprocal_encoding, given, x, k1, k2),
            },
            difference=differences.sparse_values(missing=0),
            **sparse,
        ),
        Case(
            name="sparse jaccard_distance after kNN",
            providers={
                "ccfast": lambda x, given, k1, k2, eps: stages.sparse_jaccard(x, *given, k2, eps),
                "reference": lambda x, given, k1, k2, eps: after_knn(
                    reference.jaccard_distance, given, x, k1, k2, max_distance=eps
                ),
            },
            # If only one of them stores a pair, its distance is above eps for the other.
            difference=differences.sparse_values(missing=sizes["eps"]),
            **sparse,
        ),
        Case(
            name="dense jaccard_distance after kNN",
            providers={
                "ccfast": lambda x, given, k1, k2, eps: stages.dense_jaccard(x, *given, k2),
                "reference": lambda x, given, k1, k2, eps: after_knn(reference.jaccard_distance, given, x, k1, k2),
            },
            difference=differences.values,
            **dense,
        ),
    ]


def test_jaccard(bench) -> None:
    bench()
