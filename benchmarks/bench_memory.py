"""The cluster memory: centroids and momentum updates."""

from __future__ import annotations

import torch

import ccfast
from benchmarks import differences
from benchmarks.case import Case
from benchmarks.inputs import clustered_features, memory_batch
from benchmarks.peaks import Work
from ccfast._arguments import GROUP_MODES, MODES
from ccfast.check import eager

_BATCHES, _CLUSTERS = (64, 256, 1024, 4096), (500, 3000, 10_000, 100_000)
UPDATE = {
    "quick": {mode: [{"B": 64, "D": 256, "C": 200}] for mode in (*MODES, *GROUP_MODES)},
    "full": {
        "sequential": [{"B": B, "D": 2048, "C": C} for C in _CLUSTERS for B in _BATCHES],
        "hardest": [{"B": B, "D": 2048, "C": 3000} for B in _BATCHES],
        "mean": [{"B": B, "D": 2048, "C": 3000} for B in _BATCHES],
        **{mode: [{"B": 256, "D": 2048, "C": 3000}] for mode in ("last", "replace", *GROUP_MODES)},
    },
}
CENTROIDS = {"quick": {"N": 2000, "D": 256, "C": 100}, "full": {"N": 12936, "D": 2048, "C": 700}}
INSTANCES = 16
CAMERAS = 6


def _update_work(B: int, D: int, **_) -> Work:
    """The batch read; the rows of its clusters read and written."""
    return Work(bytes=4.0 * D * (B + 2 * B // INSTANCES))


def _centroids_work(N: int, D: int, C: int) -> Work:
    """The features read, the centroids written."""
    return Work(bytes=4.0 * D * (N + C))


def _update(B: int, D: int, C: int) -> tuple:
    return memory_batch(B, D, C, INSTANCES)


def _update_of_groups(B: int, D: int, C: int) -> tuple:
    return *_update(B, D, C), torch.randint(CAMERAS, (B,), generator=torch.Generator().manual_seed(0))


def _labelled(N: int, D: int, C: int) -> tuple:
    labels = torch.randint(-1, C, (N,), generator=torch.Generator().manual_seed(0))
    return clustered_features(N, D), labels


def _in_place(update, **options):
    """The memory after the update, for the check."""

    def run(memory, features, labels, groups=None):
        update(memory, features, labels, **options, **({} if groups is None else {"groups": groups}))
        return memory

    return run


def cases(preset: str) -> list[Case]:
    updates = [_update_case(mode, sizes) for mode, found in UPDATE[preset].items() for sizes in found]
    centroids = Case(
        op="memory",
        name="cluster_centroids",
        sizes=CENTROIDS[preset],
        inputs=_labelled,
        providers={
            "ccfast": ccfast.cluster_centroids,
            "reference": ccfast.reference.cluster_centroids,
            "eager torch": eager.cluster_centroids,
        },
        difference=differences.values,
        allowed=1e-6,
        work=_centroids_work,
    )
    return [*updates, centroids]


def _update_case(mode: str, sizes: dict) -> Case:
    providers = {
        "ccfast": _in_place(ccfast.update_memory_, mode=mode),
        "reference": _in_place(ccfast.reference.update_memory_, mode=mode),
    }
    if mode == "sequential":
        providers["eager torch"] = _in_place(eager.update_memory_)
    return Case(
        op="memory",
        name=f"update_memory_ ({mode})",
        sizes=sizes,
        inputs=_update_of_groups if mode in GROUP_MODES else _update,
        providers=providers,
        difference=differences.values,
        allowed=1e-6,
        work=_update_work,
        inputs_bytes=lambda B, D, C: 4.0 * D * (B + C) * 4,  # an untouched copy for every provider's check
        growth=lambda B, D, C: float(B),
        in_place=True,
        graph=True,
        uncapturable={name: "it reads the labels on the host" for name in ("reference", "eager torch")},
    )


def test_memory(bench) -> None:
    bench()
