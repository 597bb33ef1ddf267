"""Neighbours from another search instead of ccfast's."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from conftest import Backend
from sample_inputs import FEATURES, clustered, neighbours_for

import ccfast
from ccfast.ops.nearest_so_far import NearestSoFar
from ccfast.ops.own_first import own_first

ROWS, K1 = 60, 8


def unit_rows():
    return clustered(ROWS, dim=12, identities=6)[0]


def same_csr(a, b):
    return all(
        torch.equal(getattr(a, part)(), getattr(b, part)()) for part in ("crow_indices", "col_indices", "values")
    )


@pytest.mark.parametrize("name", FEATURES)
def test_the_exact_neighbours_give_the_results_without(backend: Backend, name):
    features = backend(FEATURES[name]())
    k1, k2 = neighbours_for(features)
    given = ccfast.knn(features, k1)
    for smooth in (1, k2):
        encoding = ccfast.k_reciprocal_encoding(features, k1, smooth, neighbours=given)
        assert same_csr(encoding, ccfast.k_reciprocal_encoding(features, k1, smooth))
        dense = ccfast.jaccard_distance(features, k1, smooth, neighbours=given)
        assert torch.equal(dense, ccfast.jaccard_distance(features, k1, smooth))
        near = ccfast.jaccard_distance(features, k1, smooth, max_distance=0.7, neighbours=given)
        assert same_csr(near, ccfast.jaccard_distance(features, k1, smooth, max_distance=0.7))


def test_infomap_of_the_exact_neighbours(backend: Backend):
    pytest.importorskip("infomap")
    features = backend(unit_rows())
    expected = ccfast.infomap(features, K1, min_similarity=0.3)
    assert int(expected.max()) > 0
    assert torch.equal(ccfast.infomap(features, K1, 0.3, neighbours=ccfast.knn(features, K1)), expected)


def test_longer_lists_arrays_and_other_dtypes_are_taken(backend: Backend):
    features = backend(unit_rows())
    expected = ccfast.jaccard_distance(features, K1, 3)
    indices, distances = ccfast.knn(features, K1 + 5)
    for given in (
        (indices, distances),
        [indices.to(torch.int32), distances.double()],
        (indices.t().contiguous().t(), distances),
    ):
        assert torch.equal(ccfast.jaccard_distance(features, K1, 3, neighbours=given), expected)
    if features.device.type == "cpu":
        given = indices.numpy(), distances.numpy()
        assert torch.equal(ccfast.jaccard_distance(features, K1, 3, neighbours=given), expected)


def spoiled(change):
    """Neighbours made invalid by ``change(indices, distances)``."""
    indices, distances = ccfast.knn(unit_rows(), K1)
    changed = change(indices, distances)
    return (indices, distances) if changed is None else changed


def put(part, row, column, value):
    def change(indices, distances):
        (indices, distances)[part][row, column] = value

    return change


def swap(indices, distances):
    distances[4, [2, 6]] = distances[4, [6, 2]]


def without_itself(indices, distances):
    return indices[:, 1:].contiguous(), distances[:, 1:].contiguous()


def another_one_twice(indices, distances):
    indices[9, 5] = indices[9, 3]


WRONG = {
    "no pair": (lambda i, d: i, "pair (indices, distances)", TypeError),
    "three": (lambda i, d: (i, d, d), "got 3 items", TypeError),
    "none": (lambda i, d: (i, None), "neighbours (distances)", TypeError),
    "floats": (lambda i, d: (d, d), "neighbours (indices): expected dtype int64", TypeError),
    "whole": (lambda i, d: (i, i), "neighbours (distances): expected dtype float32", TypeError),
    "dims": (lambda i, d: (i[0], d), "neighbours (indices): expected 2 dimension", ValueError),
    "rows": (lambda i, d: (i[:-1], d[:-1]), f"expected shape ({ROWS}, {K1})", ValueError),
    "columns": (lambda i, d: (i[:, :5], d[:, :5]), f"got ({ROWS}, 5)", ValueError),
    "other shapes": (lambda i, d: (i, torch.cat([d, d], 1)), "expected one shape", ValueError),
    "too high": (put(0, 7, 3, ROWS), f"expected indices in [0, {ROWS}); ccfast.refine_neighbours", ValueError),
    "too low": (put(0, 7, 3, -1), "got -1 in row 7", ValueError),
    "without itself": (without_itself, "too few", ValueError),
    "not itself": (put(0, 5, 0, 6), "every row itself as its first neighbour", ValueError),
    "twice": (another_one_twice, "in row 9", ValueError),
    "not sorted": (swap, "ascending distances, nearest first; a smaller one follows", ValueError),
    "nan": (put(1, 3, 2, torch.nan), "finite values, got nan in row 3", ValueError),
    "infinite": (put(1, 3, K1 - 1, torch.inf), "finite values, got inf in row 3", ValueError),
    "negative": (put(1, 3, 0, -1e-3), "at least 0, got -0.001 in row 3", ValueError),
    "roots": (lambda i, d: (i, d.sqrt()), "expected squared Euclidean distances", ValueError),
    "cosine": (lambda i, d: (i, d / 2), "expected squared Euclidean distances", ValueError),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("function", ["k_reciprocal_encoding", "jaccard_distance", "infomap"])
def test_wrong_neighbours_are_refused(function, wrong):
    change, message, error = WRONG[wrong]
    if wrong == "without itself":
        message = f"got ({ROWS}, {K1 - 1})"
    if function == "infomap":
        pytest.importorskip("infomap")
    with pytest.raises(error) as raised:
        getattr(ccfast, function)(unit_rows(), K1, neighbours=spoiled(change))
    assert message in str(raised.value) and "neighbours" in str(raised.value)


def test_neighbours_of_rows_without_themselves_are_refused_by_name():
    indices, distances = ccfast.knn(unit_rows(), K1 + 1)
    with pytest.raises(ValueError, match=r"every row itself as its first neighbour.*in row 0"):
        ccfast.jaccard_distance(unit_rows(), K1, neighbours=(indices[:, 1:], distances[:, 1:]))


def test_features_are_still_checked():
    features = unit_rows()
    given = ccfast.knn(features, K1)
    with pytest.raises(ValueError, match="unit norm"):
        ccfast.jaccard_distance(2 * features, K1, neighbours=given)


# -- candidates


@pytest.mark.parametrize("name", FEATURES)
def test_candidates_that_hold_the_nearest_are_ranked_as_the_search_does(backend: Backend, name):
    features = backend(FEATURES[name]())
    k = min(9, len(features))
    generator = torch.Generator().manual_seed(0)
    found = ccfast.knn(features, min(k + 3, len(features)))[0]
    order = torch.rand(found.shape, generator=generator).argsort(1).to(found.device)
    shuffled = torch.cat([found.gather(1, order), found[:, :2], torch.full_like(found[:, :2], -1)], dim=1)
    indices, distances = ccfast.refine_neighbours(features, shuffled, k)
    expected = ccfast.knn(features, k)
    assert torch.equal(indices, expected[0]) and torch.equal(distances, expected[1])
    again = ccfast.refine_neighbours(features, shuffled[:, :-2].to(torch.int32), k)
    assert torch.equal(again[0], expected[0])


def test_many_duplicates_keep_every_row_first(backend: Backend):
    features = backend(F.normalize(torch.ones(20, 3), dim=1))
    candidates = backend(torch.arange(20).repeat(20, 1))
    expected = ccfast.knn(features, 4)
    indices, distances = ccfast.refine_neighbours(features, candidates, 4)
    assert torch.equal(indices, expected[0]) and torch.equal(distances, expected[1])
    assert indices[:, 0].tolist() == list(range(20))


@pytest.mark.parametrize(
    ("candidates", "k", "message"),
    [
        (torch.zeros(ROWS - 1, 3, dtype=torch.int64), 2, f"candidates: expected [{ROWS}, K]"),
        (torch.full((ROWS, 3), ROWS), 2, f"indices in [0, {ROWS}), or -1 for none, got another in row 0"),
        (torch.full((ROWS, 3), -2), 2, "got another in row 0"),
        (torch.arange(ROWS)[:, None].repeat(1, 3), 2, "fewer in row 0"),
        (torch.arange(ROWS)[:, None].repeat(1, 3), ROWS + 1, f"k: expected at most {ROWS}"),
    ],
)
def test_candidates_that_do_not_suffice_are_refused(candidates, k, message):
    with pytest.raises(ValueError) as raised:
        ccfast.refine_neighbours(unit_rows(), candidates, k)
    assert message in str(raised.value)
    with pytest.raises(TypeError, match="candidates: expected dtype int64"):
        ccfast.refine_neighbours(unit_rows(), torch.rand(ROWS, 3), 2)


# -- rows that come block by block


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize("order", ["ascending", "ring"])
def test_blocks_give_the_lists_of_one_search(backend: Backend, name, order):
    features = backend(FEATURES[name]())
    count = len(features)
    bounds = [0, count // 5, count // 5, count // 5 + 1, count // 2, count]
    blocks = [(begin, features[begin:end]) for begin, end in pairwise(bounds)]
    blocks = blocks if order == "ascending" else blocks[2::-1] + blocks[:2:-1]
    for begin, end in ((0, count), (count // 3, count // 2)):
        k = min(13, count)
        nearest = NearestSoFar(features[begin:end].contiguous(), k)
        for first, block in blocks:
            nearest.offer(block.contiguous(), first)
        indices, distances = nearest.lists(torch.arange(begin, end, device=features.device))
        expected = ccfast.knn(features, k)
        assert torch.equal(indices, expected[0][begin:end]) and torch.equal(distances, expected[1][begin:end])


def test_own_index_moves_to_the_front():
    lists = torch.tensor([[0, 1, 2], [3, 4, 1], [7, 8, 9]])
    assert own_first(lists, torch.tensor([0, 1, 2])).tolist() == [[0, 1, 2], [1, 3, 4], [2, 7, 8]]
