"""ccfast.compat.compute_jaccard_distance on inputs that the authors' code accepts: other norms, NaN, other k."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import Backend
from sample_inputs import clustered
from torch import Tensor

import ccfast
from ccfast import compat
from ccfast.compat import _inputs


@pytest.fixture(autouse=True)
def nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Warnings that appear once appear again in every test."""
    monkeypatch.setattr(_inputs, "_said", set())
    yield


def neighbour_lists(features: np.ndarray, k1: int) -> list[list[int]]:
    """The k1 nearest rows by |x - y|^2, filled with -1. Rows that are not finite are no neighbours and have none."""
    known = np.flatnonzero(np.isfinite(features).all(1))
    lists = []
    for i, row in enumerate(features):
        found: list[int] = []
        if i in known:
            distances = ((features[known] - row) ** 2).sum(1)
            found = known[np.lexsort((known, known != i, distances))][:k1].tolist()
        lists.append(found + [-1] * (k1 - len(found)))
    return lists


def plain_jaccard(features: Tensor, k1: int, k2: int) -> np.ndarray:
    """The authors' rules on lists with empty places: -1 is a separate member, and as an index it is the last row."""
    x = features.double().numpy()
    lists = neighbour_lists(x, k1)
    half = round(k1 / 2) + 1

    def reciprocal(i: int, width: int) -> list[int]:
        return [j for j in lists[i][:width] for other in lists[j][:width] if other == i]

    encoding = np.zeros((len(x), len(x)))
    for i in range(len(x)):
        own = reciprocal(i, k1)
        members = set(own)
        for candidate in own:
            added = reciprocal(candidate, half)
            if 3 * len(set(added) & set(own)) > 2 * len(added):
                members |= set(added)
        columns = sorted(members)
        weights = np.exp(2 * (x[columns] @ x[i] - max([x[j] @ x[i] for j in columns], default=0)))
        encoding[i, columns] = weights / weights.sum()
    if k2 > 1:
        encoding = np.stack([encoding[lists[i][:k2]].mean(0) for i in range(len(x))])
    shared = np.stack([np.minimum(row, encoding).sum(1) for row in encoding])
    return np.maximum(0, 1 - shared / (2 - shared))


def silently(features: Tensor, k1: int, k2: int) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return compat.compute_jaccard_distance(features, k1, k2, print_flag=False)


@pytest.mark.parametrize(("k1", "k2"), [(20, 6), (12, 1), (7, 7)])
@pytest.mark.parametrize("scale", ["1.002", "0.9985", "by row", "up to 10"])
def test_rows_of_any_norm_are_the_authors(backend: Backend, scale: str, k1: int, k2: int) -> None:
    features = clustered(90)[0]
    factors = torch.rand(90, 1, generator=torch.Generator().manual_seed(1))
    factor = {"1.002": 1.002, "0.9985": 0.9985, "by row": 0.5 + factors, "up to 10": 10 * factors}[scale]
    features = features * factor
    want = plain_jaccard(features, k1, k2)
    np.testing.assert_allclose(silently(backend(features), k1, k2), want, rtol=0, atol=2e-6)


def test_rows_normalised_in_bfloat16_are_the_authors() -> None:
    features = F.normalize(clustered(80, dim=8)[0].bfloat16(), dim=1)
    assert (features.float().norm(dim=1) - 1).abs().max() > 1e-3
    np.testing.assert_allclose(silently(features, 20, 6), plain_jaccard(features.float(), 20, 6), rtol=0, atol=2e-6)


def test_a_zero_row_among_rows_of_different_norms(backend: Backend) -> None:
    # Different norms, so that not all rows are equally far from it.
    features = clustered(70)[0] * torch.linspace(0.8, 1.2, 70).unsqueeze(1)
    features[9] = 0
    np.testing.assert_allclose(silently(backend(features), 12, 4), plain_jaccard(features, 12, 4), rtol=0, atol=2e-6)


@pytest.mark.parametrize("k2", [1, 6])
@pytest.mark.parametrize("lost", [[3], [0, 5, 6], [59], [2, 59]])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_rows_that_are_not_finite(backend: Backend, value: float, lost: list[int], k2: int) -> None:
    features = clustered(60)[0]
    features[lost, 1] = value
    found = silently(backend(features), 15, k2)
    np.testing.assert_allclose(found, plain_jaccard(features, 15, k2), rtol=0, atol=2e-6)
    others = np.delete(np.arange(60), lost)
    alone = ccfast.jaccard_distance(features[others], 15, k2).numpy()
    np.testing.assert_allclose(found[np.ix_(others, others)], alone, rtol=0, atol=2e-6)


@pytest.mark.parametrize("rows", [1, 2, 5, 13, 19])
@pytest.mark.parametrize(("k1", "k2"), [(20, 6), (20, 1), (40, 60), (21, 20)])
@pytest.mark.parametrize("lost", [[], [0], [-1]])
def test_lists_longer_than_there_are_rows(backend: Backend, rows: int, k1: int, k2: int, lost: list[int]) -> None:
    features = clustered(rows, identities=2)[0]
    features[lost] = float("nan")
    if rows == len(lost):
        return
    found = silently(backend(features), k1, k2)
    np.testing.assert_allclose(found, plain_jaccard(features, k1, k2), rtol=0, atol=2e-6)


def test_k2_beyond_k1_has_the_effect_of_k1(backend: Backend) -> None:
    features = backend(clustered(60)[0])
    np.testing.assert_array_equal(silently(features, 8, 30), silently(features, 8, 8))


def odd_inputs() -> dict[str, tuple[Tensor, int, int]]:
    features = clustered(30)[0]
    long, zero, nan = features * 1.002, features.clone(), features.clone()
    zero[4], nan[4] = 0, float("nan")
    return {
        "unit norm": (long, 10, 3),
        "are zero": (zero, 10, 3),
        "NaN or infinity": (nan, 10, 3),
        "k1: 31 is more than": (features, 31, 3),
        "k2: 11 is more than k1": (features, 10, 11),
    }


@pytest.mark.parametrize("message", odd_inputs())
def test_unusual_input_gives_one_warning(message: str) -> None:
    features, k1, k2 = odd_inputs()[message]
    with pytest.warns(UserWarning, match=message) as said:
        compat.compute_jaccard_distance(features, k1, k2, print_flag=False)
    assert len(said) == 1 and said[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compat.compute_jaccard_distance(features, k1, k2, print_flag=False)


@pytest.mark.parametrize(
    ("features", "k1", "k2", "message"),
    [
        (torch.full((4, 3), float("nan")), 2, 1, r"target_features: .*every row"),
        (torch.full((4, 3), 1e30), 2, 1, r"target_features: .*squared norm"),
        (torch.zeros(0, 3), 2, 1, r"target_features: .*non-empty"),
        (torch.eye(4), 0, 1, "k1: expected at least 1"),
        (torch.eye(4), 2, 0, "k2: expected at least 1"),
    ],
)
def test_options_without_effect_are_errors(features: Tensor, k1: int, k2: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        silently(features, k1, k2)


def test_openunreid_arguments_by_name_and_by_position(capsys: pytest.CaptureFixture[str]) -> None:
    features = clustered(40)[0]
    want = ccfast.jaccard_distance(features, 10, 3).numpy()
    by_name = compat.compute_jaccard_distance(
        features=features, k1=10, k2=3, search_option=0, fp16=False, verbose=False
    )
    by_position = compat.compute_jaccard_distance(features, 10, 3, 2, False, False)
    assert capsys.readouterr().out == ""
    np.testing.assert_array_equal(by_name, want)
    np.testing.assert_array_equal(by_position, want)
    assert by_position.dtype == np.float32
    assert compat.compute_jaccard_distance(features, 10, 3, 3, True, True).dtype == np.float16
    assert capsys.readouterr().out.count("\n") == 2


def test_an_unknown_argument_is_named() -> None:
    with pytest.raises(TypeError, match=r"compute_jaccard_distance: .*k3.*; expected .*target_features, k1=20"):
        compat.compute_jaccard_distance(torch.eye(3), k3=1)
