"""Keep freed memory for the next batch instead of giving it back to the kernel."""

from __future__ import annotations

import ctypes
import sys

# mallopt's parameters, from <malloc.h>
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_ONE_GIB = 2**30


def keep_freed_memory() -> None:
    """Have glibc reuse blocks of up to 1 GiB, for the whole process; does nothing with another C library.

    A batch's activations are blocks of many megabytes. By default each is mapped again and its pages are cleared by the
    kernel in every batch; on a CPU this takes a large part of the time of a small network.
    """
    if sys.platform != "linux":
        return
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, _ONE_GIB)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    except (OSError, AttributeError):
        return
