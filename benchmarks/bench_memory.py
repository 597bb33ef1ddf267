"""The cluster memory: centroids and momentum updates."""

from __future__ import annotations

import torch

import ccfast
from benchmarks import differences, peers
from benchmarks.case import Case
from benchmarks.inputs import clustered_features, memory_batch

UPDATE = {"quick": {"B": 64, "D": 256, "C": 200}, "full": {"B": 256, "D": 2048, "C": 500}}
CENTROIDS = {"quick": {"N": 2000, "D": 256, "C": 100}, "full": {"N": 12936, "D": 2048, "C": 700}}
MODES = ("sequential", "hardest", "mean")


def _update(B: int, D: int, C: int) -> tuple:
    return memory_batch(B, D, C)


def _labelled(N: int, D: int, C: int) -> tuple:
    labels = torch.randint(-1, C, (N,), generator=torch.Generator().manual_seed(0))
    return clustered_features(N, D), labels


def _in_place(update, **options):
    """The memory after the update, for the check."""

    def run(memory, features, labels):
        update(memory, features, labels, **options)
        return memory

    return run


def cases(preset: str) -> list[Case]:
    updates = []
    for mode in MODES:
        providers = {
            "ccfast": _in_place(ccfast.update_memory_, mode=mode),
            "reference": _in_place(ccfast.reference.update_memory_, mode=mode),
        }
        if mode == "sequential":
            providers["eager torch"] = _in_place(peers.update_in_eager_torch)
        case = Case(
            op="memory",
            name=f"update_memory_ ({mode})",
            sizes=UPDATE[preset],
            inputs=_update,
            providers=providers,
            difference=differences.values,
            allowed=1e-6,
            in_place=True,
        )
        updates.append(case)
    centroids = Case(
        op="memory",
        name="cluster_centroids",
        sizes=CENTROIDS[preset],
        inputs=_labelled,
        providers={
            "ccfast": ccfast.cluster_centroids,
            "reference": ccfast.reference.cluster_centroids,
            "eager torch": peers.centroids_in_eager_torch,
        },
        difference=differences.values,
        allowed=1e-6,
    )
    return [*updates, centroids]


def test_memory(bench) -> None:
    bench()
