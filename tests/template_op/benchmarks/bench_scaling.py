"""Multiplies each row of a matrix by a factor."""

from __future__ import annotations

import torch

import ccfast
from benchmarks import differences
from benchmarks.case import Case
from benchmarks.inputs import clustered_features
from benchmarks.peaks import Work

SIZES = {"quick": {"N": 2000, "D": 256}, "full": {"N": 12936, "D": 2048}}


def cases(preset: str) -> list[Case]:
    return [
        Case(
            op="scaling",
            name="scale_rows",
            sizes=SIZES[preset],
            inputs=lambda N, D: (clustered_features(N, D), torch.rand(N)),
            providers={
                "ccfast": ccfast.scale_rows,
                "reference": ccfast.reference.scale_rows,
                "eager torch": lambda features, factors: factors[:, None] * features,
            },
            difference=differences.values,
            work=lambda N, D: Work(bytes=8.0 * N * D),
        )
    ]


def test_scaling(bench) -> None:
    bench()
