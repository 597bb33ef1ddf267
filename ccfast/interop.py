"""Conversion of sparse tensors to SciPy and CuPy matrices, and back. Dense tensors need none: they support DLPack."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
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
        csr: sparse CSR tensor ``[N, M]`` on the CPU, such as the result of :func:`ccfast.jaccard_distance`.

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
    # The constructor would copy the indices to int32 if they fit.
    matrix.data, matrix.indices, matrix.indptr = values, col, crow
    return matrix


def to_cupy(csr: Tensor) -> Any:
    """A sparse CSR tensor on a CUDA device as a CuPy matrix.

    Args:
        csr: sparse CSR tensor ``[N, M]`` on a CUDA device.

    Returns:
        ``cupyx.scipy.sparse.csr_matrix`` over the same values, without a copy; the indices are converted to int32, as
        CuPy requires.

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


FORMATS = ("csr", "csc", "coo")  # converting other formats may drop stored zeros, or add some


def is_scipy(value: Any) -> bool:
    """Whether ``value`` is a sparse matrix or array of SciPy."""
    return type(value).__module__.startswith("scipy.sparse") and hasattr(value, "tocsr")


def is_cupy(value: Any) -> bool:
    """Whether ``value`` is a sparse matrix of CuPy."""
    return type(value).__module__.startswith("cupyx.scipy.sparse") and hasattr(value, "tocsr")


def from_scipy(matrix: Any, name: str = "matrix") -> Tensor:
    """A SciPy sparse matrix or array as a sparse CSR tensor, the reverse of :func:`to_scipy`.

    Args:
        matrix: ``[N, M]`` of format csr, csc or coo, float16 to float64. Stored zeros are kept; duplicate entries are
            added up.
        name: name of the argument in error messages.

    Returns:
        Sparse CSR tensor on the CPU with int64 indices, columns ascending. Values and int64 indices share the memory of
        a csr matrix if it has no duplicate entries and is writable.

    Raises:
        TypeError: not a sparse matrix of SciPy, another format or dtype.

    Examples:
        >>> import scipy.sparse, ccfast
        >>> matrix = scipy.sparse.csr_matrix(([0.5, 2.0], ([0, 1], [1, 0])))
        >>> ccfast.from_scipy(matrix).to_dense().tolist()
        [[0.0, 0.5], [2.0, 0.0]]
    """
    if not is_scipy(matrix):
        raise TypeError(f"{name}: expected a SciPy sparse matrix or array, got {type(matrix).__name__}")
    csr = _canonical(matrix, name)
    parts = (csr.indptr.astype(np.int64, copy=False), csr.indices.astype(np.int64, copy=False), csr.data)
    crow, col, values = (torch.from_numpy(np.require(part, requirements=["C", "W"])) for part in parts)
    return _csr_tensor(crow, col, values, csr.shape)


def from_cupy(matrix: Any, name: str = "matrix") -> Tensor:
    """A CuPy sparse matrix as a sparse CSR tensor on its device, the reverse of :func:`to_cupy`.

    Args:
        matrix: ``[N, M]`` of format csr, csc or coo, float32 or float64.
        name: name of the argument in error messages.

    Returns:
        Sparse CSR tensor with int64 indices, columns ascending.

    Raises:
        TypeError: not a sparse matrix of CuPy, another format or dtype.

    Examples:
        >>> import cupyx.scipy.sparse, ccfast  # doctest: +SKIP
        >>> ccfast.from_cupy(cupyx.scipy.sparse.identity(3, format="csr")).values().tolist()  # doctest: +SKIP
        [1.0, 1.0, 1.0]
    """
    if not is_cupy(matrix):
        raise TypeError(f"{name}: expected a CuPy sparse matrix, got {type(matrix).__name__}")
    csr = _canonical(matrix, name)
    crow, col, values = (torch.from_dlpack(part) for part in (csr.indptr, csr.indices, csr.data))
    return _csr_tensor(crow.to(torch.int64), col.to(torch.int64), values, csr.shape)


def as_csr(sparse: Tensor) -> Tensor:
    """A sparse CSR, CSC or COO tensor as CSR; duplicate entries of COO are added up."""
    if sparse.layout is torch.sparse_csr:
        return sparse
    with warnings.catch_warnings():  # CSR is in beta
        warnings.simplefilter("ignore", UserWarning)
        return (sparse.coalesce() if sparse.layout is torch.sparse_coo else sparse).to_sparse_csr()


def _canonical(matrix: Any, name: str) -> Any:
    """``matrix`` as csr with ascending columns and no duplicates; copied only if necessary."""
    if matrix.format not in FORMATS:
        raise TypeError(f"{name}: expected the format csr, csc or coo, got {matrix.format}")
    if matrix.ndim != 2:
        raise TypeError(f"{name}: expected 2 dimensions, got shape {matrix.shape}")
    if matrix.dtype.kind != "f" or matrix.dtype.itemsize > 8:
        raise TypeError(f"{name}: expected dtype float32, float64 or float16, got {matrix.dtype}")
    csr = matrix.tocsr()
    if not csr.has_canonical_format:
        csr = csr.copy() if csr is matrix else csr
        csr.sum_duplicates()
    return csr


def _csr_tensor(crow: Tensor, col: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    with warnings.catch_warnings():  # CSR is in beta
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse_csr_tensor(crow, col, values, shape)
