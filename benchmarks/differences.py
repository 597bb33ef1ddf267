"""Comparisons of answers."""

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


SAMPLE = 256
BLOCK = 1024


def sampled_rows(rows: int) -> slice:
    """About 256 rows, evenly spread, for which float64 distances can be computed at any size."""
    return slice(None, None, max(1, rows // SAMPLE))


def share_of_sampled_rows(answer: Tensor, truth: Tensor) -> Difference:
    """:func:`share_of_rows` for the rows of :func:`sampled_rows`."""
    found = share_of_rows(answer[sampled_rows(len(answer))], truth)
    return Difference(f"share of {len(truth)} sampled rows that differ", found.value)


def share_of_neighbours(answer: Tensor, truth: Tensor) -> Difference:
    """Share of the true neighbours of :func:`sampled_rows` that are not found, in any order."""
    found = (answer[sampled_rows(len(answer))][:, None, :] == truth[:, :, None]).any(2)
    return Difference(
        f"share of neighbours of {len(truth)} sampled rows that are missing", 1 - float(found.float().mean())
    )


def values(answer: Tensor | tuple[Tensor, ...], truth: Tensor | tuple[Tensor, ...]) -> Difference:
    """Largest absolute difference of tensors, or of tuples of tensors."""
    pairs = [(answer, truth)] if isinstance(answer, Tensor) else zip(answer, truth, strict=True)
    return _largest(max(_distance(a, t) for a, t in pairs))


def _distance(answer: Tensor, truth: Tensor) -> float:
    """By blocks of rows: in float64 a whole distance matrix may not fit."""
    blocks = zip(*(value.reshape(len(value) if value.ndim else 1, -1).split(BLOCK) for value in (answer, truth)),
                 strict=True)  # fmt: skip
    return max(float(torch.dist(a.double(), t.double(), p=torch.inf)) for a, t in blocks)


def relative(answer: tuple[Tensor, ...], truth: tuple[Tensor, ...]) -> Difference:
    """Largest norm of a difference of two tensors over that of the true one: for half precision."""
    shares = [float((a.double() - t.double()).norm() / t.double().norm()) for a, t in zip(answer, truth, strict=True)]
    return Difference("largest relative difference", max(shares))


def partition(answer: Tensor, truth: Tensor) -> Difference:
    """Share of rows outside of the cluster, or the noise, that most of their own cluster is in, and the other way."""

    def outside(own: Tensor, other: Tensor) -> float:
        pairs, counts = torch.stack([own, other]).unique(dim=1, return_counts=True)
        most = counts.new_zeros(len(counts)).scatter_reduce(0, pairs[0].unique(return_inverse=True)[1], counts, "amax")
        return 1 - float(most.sum()) / len(own)

    return Difference("share of rows clustered otherwise", max(outside(answer, truth), outside(truth, answer)))


def sparse_values(missing: float) -> Callable[[Tensor, Tensor], Difference]:
    """Largest absolute difference of CSR matrices; an entry that is not stored counts as ``missing``."""

    def difference(answer: Tensor, truth: Tensor) -> Difference:
        return _largest(abs(_shifted(answer, missing) - _shifted(truth, missing)).max())

    return difference


def _largest(value: float) -> Difference:
    return Difference("largest difference", float(value))


def _shifted(matrix: Tensor, missing: float) -> csr_array:
    """SciPy's matrix of the values minus ``missing``, so that entries that are not stored are 0."""
    matrix = matrix.cpu()
    data = matrix.values().numpy().astype(np.float64) - missing
    return csr_array((data, matrix.col_indices().numpy(), matrix.crow_indices().numpy()), shape=tuple(matrix.shape))
