"""Sparse results as SciPy and CuPy matrices. Dense ones need none: tensors speak DLPack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    import scipy.sparse


def _parts(csr: Any, device_type: str) -> tuple[Tensor, Tensor, Tensor]:
    """crow, col and values of a sparse CSR tensor on a device of the given type."""
    if not isinstance(csr, Tensor) or csr.layout is not torch.sparse_csr:
        got = f"layout {csr.layout}" if isinstance(csr, Tensor) else type(csr).__name__
        raise TypeError(f"csr: expected a sparse CSR tensor, got {got}")
    if csr.device.type != device_type:
        raise ValueError(f"csr: expected a tensor on {device_type}, got one on {csr.device}")
    return csr.crow_indices(), csr.col_indices(), csr.values().detach()


def to_scipy(csr: Tensor) -> scipy.sparse.csr_matrix:
    """A sparse CSR tensor on the CPU as a SciPy matrix that shares its memory.

    Args:
        csr: sparse CSR tensor ``[N, M]`` on the CPU, as :func:`ccfast.jaccard_distance` returns it.

    Returns:
        ``scipy.sparse.csr_matrix`` over the same values and int64 indices, without a copy.

    Raises:
        TypeError: not a sparse CSR tensor.
        ValueError: a tensor on another device.

    Examples:
        >>> import torch, ccfast
        >>> ccfast.to_scipy(torch.eye(3).to_sparse_csr()).toarray().tolist()
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    from scipy.sparse import csr_matrix

    crow, col, values = (part.numpy() for part in _parts(csr, "cpu"))
    matrix = csr_matrix(tuple(csr.shape), dtype=values.dtype)
    # The constructor would copy the indices to int32 where they fit.
    matrix.data, matrix.indices, matrix.indptr = values, col, crow
    return matrix


def to_cupy(csr: Tensor) -> Any:
    """A sparse CSR tensor on a CUDA device as a CuPy matrix.

    Args:
        csr: sparse CSR tensor ``[N, M]`` on a CUDA device.

    Returns:
        ``cupyx.scipy.sparse.csr_matrix`` over the same values, without a copy; CuPy keeps indices as int32 and converts
        those.

    Raises:
        ImportError: CuPy is missing (``pip install 'ccfast[cuda12]'`` or ``'ccfast[cuda13]'``).
        TypeError: not a sparse CSR tensor.
        ValueError: a tensor on another device.

    Examples:
        >>> import torch, ccfast
        >>> ccfast.to_cupy(torch.eye(3).to_sparse_csr().cuda()).nnz  # doctest: +SKIP
        3
    """
    try:
        import cupy
        from cupyx.scipy.sparse import csr_matrix
    except ImportError as error:
        raise ImportError("to_cupy needs CuPy: pip install 'ccfast[cuda12]' or 'ccfast[cuda13]'") from error
    crow, col, values = (cupy.from_dlpack(part) for part in _parts(csr, "cuda"))
    return csr_matrix((values, col, crow), shape=tuple(csr.shape), copy=False)
