"""The stages of the Jaccard distance give the same bits for a range of rows as for all rows."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from conftest import Backend
from sample_inputs import FEATURES, neighbours_for
from torch import Tensor

import ccfast
from ccfast.ops.encoding_by_rows import encode_rows, missing_pairs
from ccfast.ops.jaccard import column_shift, half_columns
from ccfast.reference.knn import squared_distances

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


@pytest.mark.parametrize("name", FEATURES)
def test_rows_are_encoded_with_the_features_of_their_pairs_alone(backend: Backend, name: str) -> None:
    ops, features = torch.ops.ccfast, backend(FEATURES[name]())
    k1, _ = neighbours_for(features)
    rank, distances = ccfast.knn(features, k1)
    half, shift, fetched = half_columns(k1), column_shift(features), []

    def fetch(rows: Tensor) -> Tensor:
        fetched.append(rows)
        return features[rows]

    for rows in (slice(0, len(features)), slice(len(features) // 3, len(features) // 2), slice(0, 0)):
        own, given = features[rows], distances[rows]
        i, j = missing_pairs(rank, rows)
        whole = ops.encode_neighbours(features, rank, given, half, None, shift, rows.start, rows.stop)
        found = encode_rows(rank, given, shift, rows, own, j, fetch)
        for part, expected in zip(found, whole, strict=True):
            assert torch.equal(part, expected)
        pairs = torch.repeat_interleave(torch.arange(rows.start, rows.stop, device=rank.device), whole[0].diff())
        listed = [set(row) for row in rank.tolist()]
        outside = [(a, b) for a, b in zip(pairs.tolist(), whole[1].tolist(), strict=True) if b not in listed[a]]
        assert list(zip(i.tolist(), j.tolist(), strict=True)) == outside
    assert all(rows.tolist() == sorted(set(rows.tolist())) for rows in fetched)


def test_the_exact_distances_of_pairs_are_those_that_order_neighbours(backend: Backend) -> None:
    for dim in (1, 3, 4, 31, 32, 33, 64, 65, 128, 129, 300):
        generator = torch.Generator().manual_seed(dim)
        features = backend(torch.randn(50, dim, generator=generator) * 10.0 ** torch.randint(-18, 18, (50, 1)))
        indices = backend(torch.randint(50, (7, 9), generator=generator))
        found = torch.ops.ccfast.pair_distances(features[20:27], features, indices)
        rows = features[20:27].double().repeat_interleave(9, 0), features[indices.flatten()].double()
        assert torch.equal(found.flatten(), squared_distances(*rows))


def test_pairs_of_the_wrong_shape_are_refused(backend: Backend) -> None:
    ops, features = torch.ops.ccfast, backend(FEATURES["clustered"]())
    rows = torch.zeros(3, 2, dtype=torch.int64, device=features.device)
    with pytest.raises(ValueError, match="indices: expected"):
        ops.pair_distances(features[:2], features, rows)
    with pytest.raises(ValueError, match="queries, features: expected the same number of columns"):
        ops.pair_distances(features[:3, 1:], features, rows)
    with pytest.raises(TypeError, match="indices"):
        ops.pair_distances(features[:3], features, rows.int())


def test_feature_rows_of_the_wrong_shape_are_refused(backend: Backend) -> None:
    ops, features = torch.ops.ccfast, backend(FEATURES["clustered"]())
    rank, distances = ccfast.knn(features, K1)
    half, places = half_columns(K1), torch.arange(len(features), device=features.device)
    with pytest.raises(ValueError, match="feature_rows: expected"):
        ops.encode_neighbours(features, rank, distances, half, None, None, 0, None, places[1:].contiguous())
    with pytest.raises(TypeError, match="feature_rows: expected dtype int64"):
        ops.encode_neighbours(features, rank, distances, half, None, None, 0, None, places.int())
