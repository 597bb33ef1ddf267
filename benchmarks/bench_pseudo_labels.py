"""The whole chain of an epoch: features to DBSCAN labels."""

from __future__ import annotations

import ccfast
from benchmarks import differences, peers, stages
from benchmarks.bench_jaccard import SIZES, sparse_work
from benchmarks.bench_knn import growth, work
from benchmarks.case import Case
from benchmarks.inputs import NOISE, clustered_features, feature_bytes, feature_sizes, neighbour_statistics, neighbours
from ccfast import reference

#: N x N would take 40 GB: only the sparse chain runs, to show its memory. Less noise, because in 128 dimensions
#: unrelated rows are closer.
LARGE = {"N": 100_000, "D": 128, "k1": 30, "k2": 6, "eps": 0.6, "noise": 1.0}


def _features(N: int, D: int, k1: int, k2: int, eps: float, noise: float = NOISE) -> tuple:
    return clustered_features(N, D, noise), k1, k2, eps


def _with_neighbours(N: int, D: int, k1: int, k2: int, eps: float) -> tuple:
    return clustered_features(N, D), neighbours(N, D, k1), k1, k2, eps


def _reference_labels_after_knn(x, given, k1, k2, eps):
    distances = peers.reference_after_knn(reference.jaccard_distance, given, x, k1, k2, max_distance=eps)
    return reference.dbscan(distances, eps)


def _scikit_learn_on_ccfast_distances(x, k1, k2, eps):
    return peers.scikit_learn_dbscan(ccfast.jaccard_distance(x, k1, k2, max_distance=eps), eps)


def cases(preset: str) -> list[Case]:
    found = [case for sizes in feature_sizes(SIZES[preset]) for case in _cases(sizes)]
    if preset == "full":
        large = Case(
            op="pseudo_labels",
            name="features to labels, D=128",
            sizes=LARGE,
            inputs=_features,
            providers={"ccfast": stages.labels},
            difference=differences.labels,
            truth=_scikit_learn_on_ccfast_distances,
            facts=neighbour_statistics,
            work=work,
        )
        found.append(large)
    return found


def _cases(sizes: dict) -> list[Case]:
    common = {
        "op": "pseudo_labels",
        "sizes": sizes,
        "difference": differences.labels,
        "truth": _scikit_learn_on_ccfast_distances,
        "facts": neighbour_statistics,
        "inputs_bytes": feature_bytes,
    }
    return [
        Case(
            name="labels after kNN",
            inputs=_with_neighbours,
            providers={
                "ccfast": lambda x, given, k1, k2, eps: stages.labels_after_knn(x, *given, k2, eps),
                "reference": _reference_labels_after_knn,
            },
            work=sparse_work,
            inputs_work=work,
            growth=lambda N, **_: float(N),
            **{**common, "truth": lambda x, given, *rest: _scikit_learn_on_ccfast_distances(x, *rest)},
        ),
        Case(
            name="features to labels",
            inputs=_features,
            providers={"ccfast": stages.labels, "reference": peers.reference_labels},
            work=work,
            growth=growth,
            **common,
        ),
    ]


def test_pseudo_labels(bench) -> None:
    bench()
