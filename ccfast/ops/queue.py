"""A queue of rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ccfast import _checks as checks


def enqueue_(queue: Tensor, pointer: Tensor | None, rows: Any) -> None:
    """Puts rows into a queue, in place.

    With a pointer the queue is a ring (MoCo): row i goes to ``(pointer + i) mod K``, and the pointer moves by B,
    modulo K. Without one the rows of the queue move down by B, and the new ones stand in front (SwAV).

    Args:
        queue: ``[K, D]`` float32 or float64, changed in place.
        pointer: one int64 in ``[0, K)`` on the device of ``queue``, of shape ``[]`` or ``[1]``, changed in place; or
            None.
        rows: ``[B, D]`` in the dtype of ``queue``, 1 to K of them; they are taken without their gradient.

    Raises:
        TypeError: a tensor of another dtype or layout; ``queue`` or ``pointer`` that is not a tensor.
        ValueError: an empty input, other columns, more rows than the queue has, a pointer out of range (on CUDA
            nothing waits for the device: it is taken modulo K).

    Examples:
        >>> import torch, ccfast
        >>> queue, pointer = torch.zeros(3, 1), torch.tensor(2)
        >>> ccfast.enqueue_(queue, pointer, torch.tensor([[1.0], [2.0]]))
        >>> queue.flatten().tolist(), pointer.item()
        ([2.0, 0.0, 1.0], 1)
        >>> ccfast.enqueue_(queue, None, torch.tensor([[5.0]]))
        >>> queue.flatten().tolist()
        [5.0, 2.0, 0.0]
    """
    checks.changed_in_place("queue", queue)
    queue = checks.matrix("queue", queue, checks.SINGLE_OR_DOUBLE)
    rows = checks.matrix("rows", rows, checks.SINGLE_OR_DOUBLE)
    checks.same_dtype(queue=queue, rows=rows)
    checks.same_columns(queue=queue, rows=rows)
    if rows.shape[0] > queue.shape[0]:
        raise ValueError(f"rows: expected at most {queue.shape[0]}, the rows of queue, got {rows.shape[0]}")
    if pointer is not None:
        checks.changed_in_place("pointer", pointer)
        if pointer.dtype is not torch.int64:
            raise TypeError(f"pointer: expected dtype int64, got {str(pointer.dtype).removeprefix('torch.')}")
        if pointer.numel() != 1:
            raise ValueError(f"pointer: expected one value, got shape {tuple(pointer.shape)}")
    checks.same_device(queue=queue, pointer=pointer, rows=rows)
    torch.ops.ccfast.enqueue_(queue.detach(), pointer, rows.detach())


@torch.library.register_fake("ccfast::enqueue_")
def _(queue: Tensor, pointer: Tensor | None, rows: Tensor) -> None:
    return None
