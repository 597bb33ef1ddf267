"""The authors' searches, with :func:`ccfast.knn`; if nothing is found, the result is that of faiss."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ccfast import _checks as checks
from ccfast.compat._inputs import length, rows, warn_once
from ccfast.ops.knn import knn

#: The numbers of faiss's metrics.
INNER_PRODUCT, L2 = 0, 1
#: The distance that faiss writes for index -1.
FARTHEST = torch.finfo(torch.float32).max
_BLOCK = 64  # queries whose neighbours are gathered at the same time


def flat_search(points: Tensor, queries: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
    """The result of faiss's flat index: ``(squared distances [Q, k], indices [Q, k])``, nearest first.

    A row of ``points`` with NaN or infinity is never found, and such a query finds nothing. If fewer than ``k`` rows
    are found, the rest is index -1 at :data:`FARTHEST`. ``queries`` None means every row of ``points``.
    """
    known = torch.isfinite(points).all(dim=1)
    asked = known if queries is None else torch.isfinite(queries).all(dim=1)
    total = len(asked)
    indices = torch.full((total, k), -1, dtype=torch.int64, device=points.device)
    distances = torch.full((total, k), FARTHEST, device=points.device)
    found = min(k, int(known.sum()))
    if found and asked.any():
        places = known.nonzero()[:, 0]
        near, far = knn(points[places], found, queries=None if queries is None else queries[asked])
        indices[asked, :found] = places[near]
        distances[asked, :found] = far
    return distances, indices


def inner_product_search(points: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` rows with the largest inner product for every query: ``(products [Q, k] float64, indices [Q, k])``.

    One more column, ``sqrt(max |x|^2 - |x|^2)`` for the points and 0 for the queries, gives all points the same norm,
    so the nearest points have the largest products. Rounding of that column can exchange rows whose products differ by
    less than 1e-7 of the largest ``|x|^2``; the returned rows are in the order of their exact products.
    """
    squares = (points.double() ** 2).sum(1)
    filling = (squares.max() - squares).clamp_min(0).sqrt().float().unsqueeze(1)
    found = min(k, len(points))
    longer = torch.cat([queries, torch.zeros_like(queries[:, :1])], 1)
    indices = knn(torch.cat([points, filling], 1), found, queries=longer)[0]
    products = torch.cat(
        [
            (points[near].double() @ query.double().unsqueeze(2)).squeeze(2)
            for near, query in zip(indices.split(_BLOCK), queries.split(_BLOCK), strict=True)
        ]
    )
    order = products.argsort(dim=1, descending=True, stable=True)
    missing = (0, k - found)
    products = torch.nn.functional.pad(products.gather(1, order), missing, value=-FARTHEST)
    return products, torch.nn.functional.pad(indices.gather(1, order), missing, value=-1)


def search_raw_array_pytorch(
    res: Any,
    xb: Any,
    xq: Any,
    k: int,
    D: Tensor | None = None,
    I: Tensor | None = None,  # noqa: E741
    metric: int = L2,
) -> tuple[Tensor, Tensor]:
    """The exact ``k`` nearest rows of ``xb`` for every row of ``xq``, on their device; faiss is not needed.

    Args:
        res: not used; the authors pass faiss's GPU resources.
        xb: ``[N, D]`` floating-point rows to search in.
        xq: ``[Q, D]`` queries.
        k: neighbours for each query, from 1 to a million or the rows of ``xb``.
        D: ``[Q, k]`` float32 output for the distances, or None.
        I: ``[Q, k]`` int64 output for the indices, or None.
        metric: ``faiss.METRIC_L2`` (1) or ``faiss.METRIC_INNER_PRODUCT`` (0).

    Returns:
        ``(D, I)``: squared distances, nearest first, or inner products, largest first; and the rows of ``xb``. If
        ``xb`` has too few rows, the rest is index -1 at float32's largest value (products: its negative), as in faiss.

    Raises:
        TypeError: not floating-point, ``D`` or ``I`` of another dtype.
        ValueError: an empty input, ``k`` out of range, different numbers of columns, different devices, wrong shapes,
            an unknown metric; non-finite values for inner products.
    """
    points, queries = rows("xb", xb), rows("xq", xq)
    checks.same_columns(xb=points, xq=queries)
    checks.same_device(xb=points, xq=queries)
    k = length("k", k, len(points))
    if metric not in (INNER_PRODUCT, L2):
        raise ValueError(f"metric: expected faiss.METRIC_L2 (1) or faiss.METRIC_INNER_PRODUCT (0), got {metric!r}")
    if metric == L2:
        distances, indices = flat_search(points, queries, k)
    else:
        checks.finite_rows("xb", points)
        checks.finite_rows("xq", queries)
        products, indices = inner_product_search(points, queries, k)
        distances = products.float()
    return _written("D", D, distances), _written("I", I, indices)


def _written(name: str, out: Tensor | None, value: Tensor) -> Tensor:
    if out is None:
        return value
    if out.dtype != value.dtype:
        raise TypeError(f"{name}: expected dtype {value.dtype}, got {out.dtype}")
    if out.shape != value.shape or out.device != value.device:
        raise ValueError(
            f"{name}: expected shape {tuple(value.shape)} on {value.device}, got {tuple(out.shape)} on {out.device}"
        )
    return out.copy_(value)


def compute_ranked_list(
    features: Any, k: int = 20, search_option: int = 0, fp16: bool = False, verbose: bool = True
) -> np.ndarray:
    """The ``k`` nearest other rows of every row, nearest first (PPLR's ranked list).

    Args:
        features: ``[N, D]`` floating-point rows, of any norm.
        k: neighbours, without the row itself, from 1 to a million or N.
        search_option: the search that the authors' code used; all find the same rows, and ccfast always uses an exact
            search. If k is too large, 0 and 1 fill the list with -1, as faiss does; with others it has ``N - 1``
            columns.
        fp16: not used, as in the authors' code.
        verbose: print that the list is computed, and the seconds it took.

    Returns:
        ``[N, k]`` int64.

    Raises:
        TypeError: not floating-point.
        ValueError: an empty input, ``k`` out of range.
    """
    points = rows("features", features)
    k = length("k", k, len(points))
    search_option = checks.integer("search_option", search_option, low=-(2**31))
    start = time.time()
    if verbose:
        print("Computing ranked list...")
    warn_of_lost_rows("features", points)
    columns = k if search_option in (0, 1) else min(k, len(points) - 1)
    ranked = flat_search(points, None, columns + 1)[1][:, 1:]
    if verbose:
        print(f"Ranked list computing time cost: {time.time() - start}")
    return ranked.cpu().numpy()


def warn_of_lost_rows(name: str, points: Tensor) -> None:
    """Warn once that rows with NaN or infinity are in no neighbour list; if all rows are such rows, raise an error."""
    lost = ~torch.isfinite(points).all(dim=1)
    if lost.all():
        raise ValueError(f"{name}: expected finite values, got a non-finite value in every row")
    if lost.any():
        warn_once(
            "non-finite rows",
            f"{name}: {int(lost.sum())} of {len(points)} rows contain NaN or infinity (the first is row "
            f"{int(lost.nonzero()[0, 0])}); they are in no neighbour list, as in the authors' code.",
        )
