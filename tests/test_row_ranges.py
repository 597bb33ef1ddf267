"""The stages behind the Jaccard distance answer for a range of rows with the bits that they have for all rows."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from conftest import Backend
from sample_inputs import FEATURES, neighbours_for
from torch import Tensor

import ccfast
from ccfast.ops.jaccard import column_shift, half_columns

K1 = 15
Csr = tuple[Tensor, Tensor, Tensor]


def joined(parts: list[Csr]) -> Csr:
    """The rows of ``parts``, one after the other."""
    counts = torch.cat([crow.diff() for crow, _, _ in parts])
    crow = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return crow, torch.cat([col for _, col, _ in parts]), torch.cat([values for _, _, values in parts])


def check(stage: Callable[[int, int], Csr], whole: Csr) -> None:
    rows = len(whole[0]) - 1
    for bounds in ([0, rows // 3, rows], [0, 0, rows // 2, rows - rows // 4, rows]):
        found = joined([stage(begin, end) for begin, end in pairwise(bounds)])
        for part, expected in zip(found, whole, strict=True):
            assert torch.equal(part, expected)


@pytest.mark.parametrize("name", FEATURES)
def test_ranges_of_rows_are_parts_of_the_whole(backend: Backend, name: str) -> None:
    ops, features = torch.ops.ccfast, backend(FEATURES[name]())
    k1, k2 = neighbours_for(features)
    rank, distances = ccfast.knn(features, k1)
    for begin, end in ((0, len(features)), (len(features) // 3, len(features)), (0, 1), (0, 0)):
        part = ops.knn(features, features[begin:end], k1, "fp32", begin)
        assert torch.equal(part[0], rank[begin:end]) and torch.equal(part[1], distances[begin:end])
    half, shift = half_columns(k1), column_shift(features)
    v = ops.encode_neighbours(features, rank, distances, half, None, shift)
    check(lambda b, e: ops.encode_neighbours(features, rank, distances[b:e], half, None, shift, b, e), v)
    expanded = ops.expand_queries(*v, rank, k2)
    check(lambda b, e: ops.expand_queries(*v, rank[b:e], k2), expanded)
    check(lambda b, e: ops.sparse_jaccard(*expanded, 0.7, b, e), ops.sparse_jaccard(*expanded, 0.7))
    whole = ccfast.jaccard_distance(features, k1, k2, max_distance=0.7)
    assert torch.equal(ops.sparse_jaccard(*expanded, 0.7)[2], whole.values())


@pytest.mark.parametrize(("begin", "end"), [(-1, 3), (2, 1), (0, 10_000)])
def test_ranges_outside_of_the_rows_are_refused(backend: Backend, begin: int, end: int) -> None:
    ops, features = torch.ops.ccfast, backend(FEATURES["clustered"]())
    rank, distances = ccfast.knn(features, K1)
    v = ops.encode_neighbours(features, rank, distances, half_columns(K1), None, None)
    with pytest.raises(ValueError, match="row_begin, row_end: expected a range within"):
        ops.encode_neighbours(features, rank, distances, half_columns(K1), None, None, begin, end)
    with pytest.raises(ValueError, match="row_begin, row_end: expected a range within"):
        ops.sparse_jaccard(*v, 0.5, begin, end)


@pytest.mark.parametrize("begin", [-1, 296])
def test_queries_that_cannot_be_rows_of_the_features_are_refused(backend: Backend, begin: int) -> None:
    features = backend(FEATURES["clustered"]())
    with pytest.raises(ValueError, match=f"row_begin: expected 0 to 295, got {begin}"):
        torch.ops.ccfast.knn(features, features[:5], 3, "fp32", begin)
    with pytest.raises(ValueError, match="row_begin: expected together with queries"):
        torch.ops.ccfast.knn(features, None, 3, "fp32", 2)


def test_numbers_of_another_length_than_the_rows_are_refused(backend: Backend) -> None:
    ops, features = torch.ops.ccfast, backend(FEATURES["clustered"]())
    rank, distances = ccfast.knn(features, K1)
    short, half = features[:-1, 0].contiguous(), half_columns(K1)
    with pytest.raises(ValueError, match="row_scale: expected"):
        ops.encode_neighbours(features, rank, distances, half, short, None)
    with pytest.raises(ValueError, match="column_shift: expected"):
        ops.encode_neighbours(features, rank, distances, half, None, short)
