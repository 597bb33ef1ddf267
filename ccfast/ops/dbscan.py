"""DBSCAN on precomputed distances."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ccfast import _arguments as arguments


def dbscan(distances: Any, eps: float, min_samples: int = 4) -> Tensor:
    """DBSCAN labels of a precomputed distance matrix, equal to scikit-learn's.

    A core point has at least ``min_samples`` points within ``eps``, counting itself. Clusters are numbered in the order
    of their lowest core. A border point gets the lowest label among the cores within ``eps``; noise is -1.

    Args:
        distances: symmetric ``[N, N]`` of any floating-point dtype: dense; a sparse tensor (CSR, CSC or COO); or a
            SciPy or CuPy matrix or array of format csr, csc or coo. Pairs that a sparse matrix does not store count as
            farther than ``eps``, and a diagonal that it does not store as 0; duplicate entries are added up.
        eps: largest distance of neighbours, at least 0; compared as float32 with ``<=``. Infinite distances are never
            within ``eps``.
        min_samples: at least 1.

    Returns:
        ``[N]`` int64 labels on the device of ``distances``.

    Raises:
        TypeError: another dtype, layout or sparse format.
        ValueError: a matrix that is empty, not square or contains NaN; ``eps`` or ``min_samples`` out of range.

    Examples:
        >>> import torch, ccfast
        >>> positions = torch.tensor([0.0, 0.1, 0.2, 5.0, 5.1, 9.0])
        >>> distances = (positions[:, None] - positions).abs()
        >>> ccfast.dbscan(distances, eps=0.15, min_samples=2).tolist()
        [0, 0, 0, 1, 1, -1]
    """
    distances, eps, min_samples = arguments.dbscan(distances, eps, min_samples)
    if distances.layout is torch.strided:
        return torch.ops.ccfast.dbscan(distances, eps, min_samples)
    crow, col = distances.crow_indices().to(torch.int64), distances.col_indices().to(torch.int64)
    values = distances.values().to(torch.float32)
    return torch.ops.ccfast.dbscan_sparse(crow.contiguous(), col.contiguous(), values.contiguous(), eps, min_samples)


@torch.library.register_fake("ccfast::dbscan")
def _(distances: Tensor, eps: float, min_samples: int) -> Tensor:
    return distances.new_empty(distances.shape[0], dtype=torch.int64)


@torch.library.register_fake("ccfast::dbscan_sparse")
def _(crow: Tensor, col: Tensor, values: Tensor, eps: float, min_samples: int) -> Tensor:
    return crow.new_empty(crow.shape[0] - 1)
