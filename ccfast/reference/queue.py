"""A queue of rows: the ring of MoCo (He et al. 2020) and the shifted one of SwAV (Caron et al. 2020)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ccfast import _arguments as arguments


@torch.no_grad()
def enqueue_(queue: Tensor, pointer: Tensor | None, rows: Any) -> None:
    """See :func:`ccfast.enqueue_`."""
    queue, pointer, rows = arguments.enqueue_(queue, pointer, rows)
    size = len(queue)
    if pointer is None:
        queue.copy_(torch.cat([rows, queue[: size - len(rows)]]))
        return
    if not 0 <= int(pointer) < size:
        raise ValueError(f"pointer: expected a value in [0, {size}), got {int(pointer)}")
    for row in rows:
        queue[int(pointer)] = row
        pointer.copy_((pointer + 1) % size)
