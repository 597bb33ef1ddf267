"""How answers are compared."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from benchmarks.case import Difference


def labels(answer: Tensor, truth: Tensor) -> Difference:
    """Labels that are not the same number."""
    return Difference("labels that differ", int((answer != truth).sum()))


def share_of_rows(answer: Tensor, truth: Tensor) -> Difference:
    """Share of the rows of integers that are not the same, number for number."""
    return Difference("share of rows that differ", float((answer != truth).any(1).float().mean()))


def values(answer: Tensor | tuple[Tensor, ...], truth: Tensor | tuple[Tensor, ...]) -> Difference:
    """Largest absolute difference of tensors, or of tuples of tensors."""
    pairs = [(answer, truth)] if isinstance(answer, Tensor) else zip(answer, truth, strict=True)
    return _largest(max(float(torch.dist(a.double(), t.double(), p=torch.inf)) for a, t in pairs))


def sparse_values(missing: float) -> Callable[[Tensor, Tensor], Difference]:
    """Largest absolute difference of CSR matrices; an entry that is not stored counts as ``missing``."""

    def difference(answer: Tensor, truth: Tensor) -> Difference:
        return _largest(abs(_shifted(answer, missing) - _shifted(truth, missing)).max())

    return difference


def _largest(value: float) -> Difference:
    return Difference("largest difference", float(value))


def _shifted(matrix: Tensor, missing: float) -> csr_array:
    """SciPy's matrix of the values less ``missing``, so that what is not stored is 0."""
    data = matrix.values().numpy().astype(np.float64) - missing
    return csr_array((data, matrix.col_indices().numpy(), matrix.crow_indices().numpy()), shape=tuple(matrix.shape))
