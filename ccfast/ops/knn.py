"""Exact k nearest neighbours."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ccfast import _arguments as arguments


def knn(features: Any, k: int, *, queries: Any = None, precision: str = "fp32") -> tuple[Tensor, Tensor]:
    """The k nearest rows of ``features`` for every query, by squared Euclidean distance.

    The result is exact: distances are accumulated in float64; the nearest row comes first, and for ties the lower
    index. Without ``queries``, a row comes first among its own neighbours, even if duplicates have a lower index. All
    devices give the same bits for any finite values (docs/exactness.md).

    ``precision`` sets only the arithmetic of the candidate search, whose result is certified for each row. A CPU with
    matrix units for bfloat16 uses them for candidates also with "fp32". A GPU always uses float16 products for
    candidates (bfloat16 products are equally fast and eight times as coarse). It uses float32 products if float16
    cannot certify a row, or if torch may sum them in float16
    (``torch.backends.cuda.matmul.allow_fp16_accumulation``).

    Args:
        features: ``[N, D]`` float32, float16 or bfloat16; any finite values.
        k: neighbours per query, ``1 <= k <= N``.
        queries: ``[Q, D]``, or None to search for every row of ``features``, which then finds itself first.
        precision: ``"fp32"``, ``"fp16"`` or ``"bf16"`` products in the candidate search on a CPU.

    Returns:
        ``indices [Q, k]`` int64 and ``distances [Q, k]`` float32, on the device of ``features``. A distance above the
        largest float32 is infinity; the order is still that of the float64 values.

    Raises:
        TypeError: a tensor of another dtype or layout.
        ValueError: an empty input, ``k`` out of range, non-finite values (the message names the first such row), a
            different number of columns, mixed devices, an unknown precision.

    Examples:
        >>> import torch, ccfast
        >>> features = torch.tensor([[0.0], [1.0], [3.0]])
        >>> indices, distances = ccfast.knn(features, k=2)
        >>> indices.tolist(), distances.tolist()
        ([[0, 1], [1, 0], [2, 1]], [[0.0, 1.0], [0.0, 1.0], [0.0, 4.0]])
        >>> ccfast.knn(features, 1, queries=torch.tensor([[2.5]]))[0].tolist()
        [[2]]
    """
    features, k, queries = arguments.knn(features, k, queries, precision)
    return torch.ops.ccfast.knn(features, queries, k, precision)


@torch.library.register_fake("ccfast::knn")
def _(
    features: Tensor, queries: Tensor | None, k: int, precision: str, row_begin: int | None = None
) -> tuple[Tensor, Tensor]:
    rows = (features if queries is None else queries).shape[0]
    return (
        features.new_empty((rows, k), dtype=torch.int64),
        features.new_empty((rows, k), dtype=torch.float32),
    )


@torch.library.register_fake("ccfast::squared_norms")
def _(features: Tensor) -> Tensor:
    return features.new_empty(features.shape[0], dtype=torch.float64)
