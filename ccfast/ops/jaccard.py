"""k-reciprocal encoding and Jaccard distance."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from ccfast import _arguments as arguments
from ccfast import _checks as checks
from ccfast.ops.given_neighbours import given_neighbours

CsrTensors = tuple[Tensor, Tensor, Tensor]


def k_reciprocal_encoding(
    features: Any, k1: int = 30, k2: int = 6, *, neighbours: tuple[Any, Any] | None = None
) -> Tensor:
    """k-reciprocal encoding V of every row (Zhong et al., CVPR 2017, section 3), with local query expansion.

    Args:
        features: ``[N, D]`` float32, rows of unit norm within 1e-3; or float16 or bfloat16, within 1e-2, which are
            normalised again in float32.
        k1: size of the neighbour lists, counting the row itself, ``1 <= k1 <= N``.
        k2: rows averaged by the query expansion, ``1 <= k2 <= k1``; 1 skips it.
        neighbours: the nearest rows of every row from another search; None: use :func:`ccfast.knn`. A pair ``(indices,
            distances)`` in its format: ``[N, k1]`` integers and floating-point numbers (further columns are ignored),
            every row its own first neighbour, no duplicates, distances squared Euclidean and ascending.
            :func:`ccfast.refine_neighbours` makes such a pair from the output of an index.

    Returns:
        Sparse CSR tensor ``[N, N]`` float32 with ascending columns; weights of a row sum to 1.

    Raises:
        TypeError: a tensor of another dtype or layout.
        ValueError: an empty input, ``k1`` or ``k2`` out of range, non-finite or un-normalised rows (the message names
            the first), ``neighbours`` in another format.

    Examples:
        >>> import torch, ccfast
        >>> features = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
        >>> features = torch.nn.functional.normalize(features, dim=1)
        >>> encoding = ccfast.k_reciprocal_encoding(features, k1=2, k2=1)
        >>> encoding.layout, encoding.col_indices().tolist()
        (torch.sparse_csr, [0, 1, 0, 1, 2, 3, 2, 3])
        >>> torch.allclose(encoding.to_dense().sum(dim=1), torch.ones(4))
        True
    """
    features, k1, k2 = arguments.encoding(features, k1, k2)
    if neighbours is not None:
        return csr_tensor(_encoding_of(features, k1, k2, neighbours), features.shape[0])
    return csr_tensor(torch.ops.ccfast.k_reciprocal_encoding(features, k1, k2), features.shape[0])


def jaccard_distance(
    features: Any,
    k1: int = 30,
    k2: int = 6,
    *,
    max_distance: float | None = None,
    neighbours: tuple[Any, Any] | None = None,
) -> Tensor:
    """Jaccard distance of the k-reciprocal encodings (Zhong et al., CVPR 2017, equation 10), as in Cluster Contrast.

    Args:
        features: ``[N, D]`` float32, rows of unit norm within 1e-3; or float16 or bfloat16, within 1e-2, which are
            normalised again in float32.
        k1: size of the neighbour lists, counting the row itself, ``1 <= k1 <= N``.
        k2: rows averaged by the query expansion, ``1 <= k2 <= k1``; 1 skips it.
        max_distance: None for the dense matrix, or a number in ``[0, 1)`` for a sparse one.
        neighbours: the nearest rows of every row from another search; None: use :func:`ccfast.knn`. A pair ``(indices,
            distances)`` in its format: ``[N, k1]`` integers and floating-point numbers (further columns are ignored),
            every row its own first neighbour, no duplicates, distances squared Euclidean and ascending.
            :func:`ccfast.refine_neighbours` makes such a pair from the output of an index.

    If two rows share only *a* of their ``k2`` nearest rows, their distance is ``1 - a / (2 * k2 - a)`` within
    rounding, for any features: with ``k2=6`` 0.909, 0.8, 0.667, 0.5, 0.286 and 0. If eps is such a value, the labels
    depend on the last bit. Avoid these values: use 0.45 or 0.55 instead of 0.5.

    Returns:
        Dense ``[N, N]`` float32, bitwise symmetric; or, with ``max_distance``, a sparse CSR tensor ``[N, N]`` with
        every pair at distance at most ``max_distance`` (as float32) and the whole diagonal, columns ascending. Its
        memory is O(N * neighbours), never N x N.

    Raises:
        TypeError: a tensor of another dtype or layout.
        ValueError: an empty input, ``k1``, ``k2`` or ``max_distance`` out of range, non-finite or un-normalised rows
            (the message names the first), ``neighbours`` in another format.

    Examples:
        >>> import torch, ccfast
        >>> features = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
        >>> features = torch.nn.functional.normalize(features, dim=1)
        >>> ccfast.jaccard_distance(features, k1=2, k2=1).round(decimals=1).tolist()
        [[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]]
        >>> near = ccfast.jaccard_distance(features, k1=2, k2=1, max_distance=0.5)  # sparse: 8 of the 16 pairs
        >>> len(near.values())
        8
    """
    features, k1, k2, max_distance = arguments.jaccard_distance(features, k1, k2, max_distance)
    if neighbours is not None:
        return _distance_of(_encoding_of(features, k1, k2, neighbours), max_distance)
    if max_distance is None:
        return torch.ops.ccfast.jaccard_distance(features, k1, k2)
    parts = torch.ops.ccfast.jaccard_distance_sparse(features, k1, k2, max_distance)
    return csr_tensor(parts, features.shape[0])


def _encoding_of(features: Tensor, k1: int, k2: int, neighbours: Any) -> CsrTensors:
    """V from given neighbours: the stages of ``torch.ops.ccfast.k_reciprocal_encoding``."""
    checks.unit_rows("features", features)
    rank, distances = given_neighbours(neighbours, features, k1)
    v = encoding_of_rows(features, rank, distances)
    return v if k2 == 1 else torch.ops.ccfast.expand_queries(*v, rank, k2)


def encoding_of_rows(
    features: Tensor, rank: Tensor, distances: Tensor, rows: slice = slice(0, None), half: int | None = None
) -> CsrTensors:
    """V of ``rows`` before the query expansion.

    Args:
        features: ``[N, D]`` float32.
        rank: ``[N, k1]`` neighbours of all rows.
        distances: to those of ``rows``, squared.
        rows: all by default.
        half: columns of the half lists; None: :func:`half_columns` of ``k1``.
    """
    half = half_columns(rank.shape[1]) if half is None else half
    shift = column_shift(features)
    return torch.ops.ccfast.encode_neighbours(features, rank, distances, half, None, shift, rows.start, rows.stop)


def _distance_of(v: CsrTensors, max_distance: float | None) -> Tensor:
    """The Jaccard distances of the rows of V."""
    rows = v[0].shape[0] - 1
    if max_distance is None:
        return torch.ops.ccfast.dense_jaccard(*v, 0, rows, 0, rows)
    return csr_tensor(torch.ops.ccfast.sparse_jaccard(*v, max_distance), rows)


def half_columns(k1: int) -> int:
    """Columns of the half lists of the encoding: ``round_half_even(k1 / 2) + 1``, which is at most ``k1``."""
    return round(k1 / 2) + 1


def column_shift(features: Tensor) -> Tensor:
    """The term that turns a row's squared distances ``|x - y|^2`` into the authors' ``2 - 2 <x, y>``.

    Terms that depend only on the other row cancel in the softmax. ``features [N, D]`` float32 -> ``[N]`` float32.
    """
    return (1 - torch.ops.ccfast.squared_norms(features)).float()


def csr_tensor(parts: CsrTensors, rows: int) -> Tensor:
    """The square sparse tensor of ``parts`` (crow, col, values)."""
    crow, col, values = parts
    with warnings.catch_warnings():  # CSR is in beta; invariants hold by construction and are not checked
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse_csr_tensor(crow, col, values, (rows, rows), check_invariants=False)


def fake_csr(like: Tensor, rows: int) -> CsrTensors:
    """The shapes of a sparse result with this number of rows, for ``register_fake``."""
    nnz = torch.library.get_ctx().new_dynamic_size()
    index = torch.int64
    return (
        like.new_empty(rows + 1, dtype=index),
        like.new_empty(nnz, dtype=index),
        like.new_empty(nnz, dtype=torch.float32),
    )


def _rows(total: int, begin: int, end: int | None) -> int:
    return (total if end is None else end) - begin


@torch.library.register_fake("ccfast::k_reciprocal_encoding")
def _(features: Tensor, k1: int, k2: int) -> CsrTensors:
    return fake_csr(features, features.shape[0])


@torch.library.register_fake("ccfast::jaccard_distance")
def _(features: Tensor, k1: int, k2: int) -> Tensor:
    return features.new_empty((features.shape[0], features.shape[0]))


@torch.library.register_fake("ccfast::jaccard_distance_sparse")
def _(features: Tensor, k1: int, k2: int, max_distance: float) -> CsrTensors:
    return fake_csr(features, features.shape[0])


@torch.library.register_fake("ccfast::encode_neighbours")
def _(
    features: Tensor,
    rank: Tensor,
    distances: Tensor,
    half: int,
    row_scale: Tensor | None,
    column_shift: Tensor | None,
    row_begin: int = 0,
    row_end: int | None = None,
    feature_rows: Tensor | None = None,
) -> CsrTensors:
    return fake_csr(features, _rows(rank.shape[0], row_begin, row_end))


@torch.library.register_fake("ccfast::expand_queries")
def _(crow: Tensor, col: Tensor, values: Tensor, rank: Tensor, k2: int) -> CsrTensors:
    return fake_csr(values, rank.shape[0])


@torch.library.register_fake("ccfast::sparse_jaccard")
def _(
    crow: Tensor, col: Tensor, values: Tensor, max_distance: float, row_begin: int = 0, row_end: int | None = None
) -> CsrTensors:
    return fake_csr(values, _rows(crow.shape[0] - 1, row_begin, row_end))


@torch.library.register_fake("ccfast::dense_jaccard")
def _(crow: Tensor, col: Tensor, values: Tensor, row_begin: int, row_end: int, col_begin: int, col_end: int) -> Tensor:
    return values.new_empty((row_end - row_begin, col_end - col_begin))
