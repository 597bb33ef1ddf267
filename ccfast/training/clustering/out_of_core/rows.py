"""The features: rows of a .npy file of any size, or a float32 copy of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ccfast._errors import InputError, is_out_of_memory
from ccfast.ops.nearest_so_far import NearestSoFar
from ccfast.training.clustering.out_of_core.budget import Budget
from ccfast.training.clustering.out_of_core.files import RowFile

#: Number of pairs whose rows are gathered at the same time.
_PAIRS = 1 << 15


def load_matrix(path: Path, *, mapped: bool = False) -> np.ndarray:
    """The matrix of floats [N, D] in the .npy file ``path``, read or mapped.

    Raises:
        InputError: there is none.
    """
    try:
        array = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except Exception as error:  # NumPy can raise any error for damaged files
        if is_out_of_memory(error):
            raise
        raise InputError(f"{path}: cannot be read as a .npy file: {error}") from error
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind != "f":
        got = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else "an archive (.npz)"
        raise InputError(f"{path}: expected a matrix of floats [N, D], got {got}")
    return array


def opened(path: Path) -> np.ndarray:
    """:func:`load_matrix`, mapped and not empty."""
    array = load_matrix(path, mapped=True)
    if 0 in array.shape:
        raise InputError(f"{path}: expected a non-empty matrix, got shape {array.shape}")
    return array


def not_clustered(features: str | Path, error: ValueError, normalize: bool) -> InputError:
    """The ops' error about the rows of the file ``features``, with a hint if they do not have unit norm."""
    hint = "" if normalize else " (--normalize scales rows to unit norm)"
    return InputError(f"{features}: {error}{hint if 'norm' in str(error) else ''}")


def as_it_is(path: Path) -> RowFile | None:
    """The rows inside the .npy file, if they are contiguous float32."""
    array = opened(path)
    if array.dtype != np.dtype("<f4") or not array.flags.c_contiguous:
        return None
    return RowFile(path, array.shape[1], "<f4", offset=_offset(array))


def _offset(array: np.ndarray) -> int:
    """The offset of a mapped array's numbers in its file."""
    assert isinstance(array, np.memmap)
    return int(array.offset)


class FeatureRows:
    """``count`` rows of a :class:`RowFile`, searched by blocks whose size ``budget`` limits."""

    def __init__(self, file: RowFile, count: int, budget: Budget) -> None:
        self.file, self.count, self.dim, self.budget = file, count, file.width, budget

    def read(self, begin: int, end: int) -> Tensor:
        """Rows begin .. end - 1."""
        return self.file.read(begin, end)

    def take(self, rows: Tensor) -> Tensor:
        """The given rows, which are in ascending order."""
        return self.file.take(rows)

    def search(self, queries: Tensor, own: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The ``k`` nearest of all rows for ``queries``, as in ``ccfast.knn``; ``own`` are their row numbers."""
        nearest, step = NearestSoFar(queries, k), self.budget.search()[1]
        for begin in range(0, self.count, step):
            nearest.offer(self.read(begin, min(begin + step, self.count)).to(queries.device), begin)
        return nearest.lists(own)

    def measure(self, queries: Tensor, indices: Tensor) -> Tensor:
        """Exact distances float64 [Q, K] of ``queries`` [Q, D] to the rows of ``indices`` [Q, K]."""
        distances, step = torch.empty(indices.shape, dtype=torch.float64), self.budget.search()[1]
        for begin in range(0, self.count, step):
            row, column = ((indices >= begin) & (indices < begin + step)).nonzero().unbind(1)
            if len(row) == 0:
                continue
            block = self.read(begin, min(begin + step, self.count))
            for i, m in zip(row.split(_PAIRS), column.split(_PAIRS), strict=True):
                chosen = (indices[i, m] - begin)[:, None]
                distances[i, m] = torch.ops.ccfast.pair_distances(queries[i], block, chosen)[:, 0]
        return distances
