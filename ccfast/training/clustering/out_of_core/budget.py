"""The number of rows per block, for each stage."""

from __future__ import annotations

import re
from pathlib import Path

from ccfast._errors import InputError

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}

#: Memory of the search for any block size: a tile of products and its copy, and what the allocator keeps.
FIXED = 160 << 20

#: Smallest number of rows per block.
FEWEST = 64


def parse_size(option: str, text: str | int) -> int:
    """Bytes of ``text``: a number and K, M, G or T (powers of 1,024), as in 800M or 1.5G."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", str(text), re.IGNORECASE)
    if match is None or float(match[1]) <= 0:
        raise InputError(f"{option}: expected a size such as 800M or 1.5G, got {text!r}")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def resident() -> int:
    """Bytes of memory that this process uses now; 0 if the system does not report them."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    except (OSError, ValueError, IndexError):
        return 0


class Budget:
    """The bytes for blocks of N rows of D values with k1 neighbours each, without the memory that all blocks share.

    Raises:
        InputError: less than the neighbour lists of all rows need.
    """

    def __init__(self, limit: int, count: int, dim: int, k1: int) -> None:
        self.count, self.dim, self.k1 = count, dim, k1
        used = resident()
        self.room = limit - used
        # The encoding reads the neighbours of all rows and makes reciprocal lists: int64, and twice int32.
        self.lists = count * (8 * k1 + 4 * k1 + 4 * (k1 // 2 + 2) + 64)
        least = used + FIXED + self.lists + FEWEST * (16 * dim + 256 * k1)
        if limit < least:
            raise InputError(
                f"--memory-limit: expected at least {-(-least // 2**20)}M for {count:,} rows and --k1 {k1}, of which "
                f"{used >> 20}M are the program itself, got {limit >> 20}M"
            )

    def _rows(self, room: int, per_row: int) -> int:
        return max(1, min(self.count, room // per_row))

    def search(self) -> tuple[int, int]:
        """Queries per block, and targets per block."""
        keep = self.k1 + 16
        query = 8 * self.dim + 16 * keep + 160 * self.k1 + 64
        target = 8 * self.dim + 64
        room = self.room - FIXED
        return self._rows(room * 3 // 4, query), self._rows(room // 4, target)

    def plain(self) -> int:
        """Rows of features per block of the check and the copy."""
        return self._rows(min(self.room // 4, 64 << 20), 16 * self.dim)

    def index(self) -> int:
        """Bytes for a faiss index: half of the budget."""
        return (self.room - FIXED) // 2

    def candidates(self) -> int:
        """Rows per block when the distances to an index's candidates are computed."""
        return self._rows(min((self.room - FIXED) // 4, 256 << 20), 8 * self.dim + 96 * (self.k1 + 16))

    def encode(self) -> int:
        """Rows per block of the encoding: entries of V, members to check, and features to fetch."""
        per_row = 8 * self.dim + 40 * self.k1 * 8
        return self._rows((self.room - FIXED - self.lists) // 2, per_row)

    def entries(self) -> int:
        """Entries of sparse rows, of 12 bytes each, per block, including the results made from them."""
        return max(4096, (self.room - FIXED - 24 * self.count) // 64)
