"""k-reciprocal encoding and Jaccard distance, the neighbours being known."""

from __future__ import annotations

from benchmarks import differences, peers, stages
from benchmarks.case import Case
from benchmarks.inputs import clustered_features, neighbour_statistics, neighbours
from ccfast import reference

SIZES = {
    "quick": {"N": 2000, "D": 256, "k1": 30, "k2": 6, "eps": 0.6},
    "full": {"N": 12936, "D": 2048, "k1": 30, "k2": 6, "eps": 0.6},
}


def _inputs(N: int, D: int, k1: int, k2: int, eps: float) -> tuple:
    return clustered_features(N, D), neighbours(N, D, k1), k1, k2, eps


def cases(preset: str) -> list[Case]:
    common = {"op": "jaccard", "sizes": SIZES[preset], "inputs": _inputs, "facts": neighbour_statistics}
    after_knn = peers.reference_after_knn
    return [
        Case(
            name="k_reciprocal_encoding after kNN",
            providers={
                "ccfast": lambda x, given, k1, k2, eps: stages.encoding(x, *given, k2),
                "reference": lambda x, given, k1, k2, eps: after_knn(reference.k_reciprocal_encoding, given, x, k1, k2),
            },
            difference=differences.sparse_values(missing=0),
            allowed=1e-6,
            **common,
        ),
        Case(
            name="sparse jaccard_distance after kNN",
            providers={
                "ccfast": lambda x, given, k1, k2, eps: stages.sparse_jaccard(x, *given, k2, eps),
                "reference": lambda x, given, k1, k2, eps: after_knn(
                    reference.jaccard_distance, given, x, k1, k2, max_distance=eps
                ),
            },
            # A pair that only one of them stores is farther than eps for the other.
            difference=differences.sparse_values(missing=SIZES[preset]["eps"]),
            allowed=1e-6,
            **common,
        ),
        Case(
            name="dense jaccard_distance after kNN",
            providers={
                "ccfast": lambda x, given, k1, k2, eps: stages.dense_jaccard(x, *given, k2),
                "reference": lambda x, given, k1, k2, eps: after_knn(reference.jaccard_distance, given, x, k1, k2),
            },
            difference=differences.values,
            allowed=1e-6,
            **common,
        ),
    ]


def test_jaccard(bench) -> None:
    bench()
