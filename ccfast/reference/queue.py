"""A queue of rows: the ring of MoCo (He et al. 2020) and the shifted one of SwAV (Caron et al. 2020)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ccfast import _checks as checks


@torch.no_grad()
def enqueue_(queue: Tensor, pointer: Tensor | None, rows: Any) -> None:
    """As :func:`ccfast.enqueue_`."""
    checks.changed_in_place("queue", queue)
    queue = checks.matrix("queue", queue, checks.SINGLE_OR_DOUBLE).detach()
    rows = checks.matrix("rows", rows, checks.SINGLE_OR_DOUBLE)
    checks.same_dtype(queue=queue, rows=rows)
    checks.same_columns(queue=queue, rows=rows)
    size, count = queue.shape[0], rows.shape[0]
    if count > size:
        raise ValueError(f"rows: expected at most {size}, the rows of queue, got {count}")
    if pointer is None:
        checks.same_device(queue=queue, rows=rows)
        queue.copy_(torch.cat([rows, queue[: size - count]]))
        return
    checks.changed_in_place("pointer", pointer)
    if pointer.dtype is not torch.int64:
        raise TypeError(f"pointer: expected dtype int64, got {str(pointer.dtype).removeprefix('torch.')}")
    if pointer.numel() != 1:
        raise ValueError(f"pointer: expected one value, got shape {tuple(pointer.shape)}")
    checks.same_device(queue=queue, pointer=pointer, rows=rows)
    if not 0 <= int(pointer) < size:
        raise ValueError(f"pointer: expected a value in [0, {size}), got {int(pointer)}")
    for row in rows:
        queue[int(pointer)] = row
        pointer.copy_((pointer + 1) % size)
