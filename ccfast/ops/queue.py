"""A queue of rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ccfast import _arguments as arguments


def enqueue_(queue: Tensor, pointer: Tensor | None, rows: Any) -> None:
    """Put rows into a queue, in place.

    With a pointer the queue is a ring (MoCo): row i goes to ``(pointer + i) mod K``, and the pointer moves by B,
    modulo K. Without a pointer, the rows of the queue move down by B, and the new rows come first (SwAV).

    Args:
        queue: ``[K, D]`` float32 or float64, changed in place.
        pointer: one int64 in ``[0, K)`` on the device of ``queue``, of shape ``[]`` or ``[1]``, changed in place; or
            None.
        rows: ``[B, D]`` in the dtype of ``queue``, with B from 1 to K; used without gradient.

    Raises:
        TypeError: a tensor of another dtype or layout; ``queue`` or ``pointer`` that is not a tensor.
        ValueError: an empty input, a different number of columns, more rows than the queue has, a pointer out of range
            (on CUDA this check would have to wait for the device: the pointer is taken modulo K).

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
    torch.ops.ccfast.enqueue_(*arguments.enqueue_(queue, pointer, rows))


@torch.library.register_fake("ccfast::enqueue_")
def _(queue: Tensor, pointer: Tensor | None, rows: Tensor) -> None:
    return None
