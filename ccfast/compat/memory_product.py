"""The authors' ``cm`` and ``cm_hard``: similarities whose backward pass updates the memory."""

from __future__ import annotations

import torch
from torch import Tensor

from ccfast import _checks as checks
from ccfast.ops.memory import update_memory_from
from ccfast.ops.similarity import memory_similarity


def cm(inputs: Tensor, indexes: Tensor, features: Tensor, momentum: float = 0.5) -> Tensor:
    """Similarities ``inputs @ features.T``; backward then updates ``features`` sample by sample, in batch order.

    The gradient of every backward pass uses the current rows; then they are updated: see
    :func:`ccfast.memory_similarity`. ``features`` gets no gradient.

    Args:
        inputs: ``[B, D]`` floating-point. The authors' rows have unit norm; other rows are mixed in unchanged.
        indexes: ``[B]`` the rows of ``features`` that the inputs belong to.
        features: ``[C, D]`` float32 or float64, changed in place.
        momentum: share of the old row that an update keeps, in ``[0, 1]``.

    Returns:
        ``[B, C]``.

    Raises:
        TypeError: a tensor of another dtype or layout.
        ValueError: other shapes, devices or lengths, ``momentum`` out of range; ``indexes`` out of range and
            non-finite rows (not checked on CUDA).
    """
    return _product(inputs, indexes, features, momentum, "sequential")


def cm_hard(inputs: Tensor, indexes: Tensor, features: Tensor, momentum: float = 0.5) -> Tensor:
    """:func:`cm` that updates each row once, from its sample of lowest similarity (the first of equals).

    Arguments, result and errors are those of :func:`cm`.
    """
    return _product(inputs, indexes, features, momentum, "hardest")


def _product(inputs: Tensor, indexes: Tensor, features: Tensor, momentum: float, mode: str) -> Tensor:
    inputs = checks.matrix("inputs", inputs, checks.ANY_FLOAT)
    memory = checks.matrix("features", features, checks.SINGLE_OR_DOUBLE).detach()
    indexes = checks.vector_of_integers("indexes", indexes, len(inputs), "inputs", inputs.device)
    checks.same_columns(inputs=inputs, features=memory)
    checks.same_device(inputs=inputs, indexes=indexes, features=memory)
    momentum = checks.real("momentum", momentum, low=0, high=1)
    if memory.device.type == "cpu":  # the check would wait for a GPU
        checks.labels_in_range("indexes", indexes, len(memory))
        checks.finite_rows("inputs", inputs.detach())

    def move(rows: Tensor) -> None:
        _update(memory, rows.to(memory.dtype), indexes, momentum, mode)

    return memory_similarity(inputs, memory, move)


def _update(memory: Tensor, rows: Tensor, indexes: Tensor, momentum: float, mode: str) -> None:
    if memory.device.type != "cpu" or _of_unit_norm(rows):
        update_memory_from(memory, rows, indexes, momentum, mode, normalize=False)
        return
    if mode == "hardest":
        products = (rows * memory[indexes]).sum(1)
        hardest = [int((products.where(indexes == index, torch.inf)).argmin()) for index in indexes.unique()]
        rows, indexes = rows[hardest], indexes[hardest]
    for row, index in zip(rows, indexes.tolist(), strict=True):
        if index >= 0:
            mixed = momentum * memory[index] + (1 - momentum) * row
            memory[index] = mixed / torch.linalg.vector_norm(mixed)


def _of_unit_norm(rows: Tensor) -> bool:
    norms = torch.linalg.vector_norm(rows.double(), dim=1)
    return bool(((norms - 1).abs() <= checks.UNIT_NORM_TOLERANCE).all())
