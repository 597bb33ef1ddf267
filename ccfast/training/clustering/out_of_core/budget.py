"""The number of rows per block, for each stage."""

from __future__ import annotations

import re
from pathlib import Path

from ccfast._errors import InputError

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}

#: What the search allocates whatever the blocks are: a tile of products and its copy, and what the allocator keeps.
FIXED = 160 << 20

#: Rows that a block should have at least.
FEWEST = 64


def parse_size(option: str, text: str | int) -> int:
    """Bytes of ``text``: a number and K, M, G or T (powers of 1,024), as in 800M or 1.5G."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", str(text), re.IGNORECASE)
    if match is None or float(match[1]) <= 0:
        raise InputError(f"{option}: expected a size such as 800M or 1.5G, got {text!r}")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def resident() -> int:
    """Bytes of memory that this process has now; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    except (OSError, ValueError, IndexError):
        return 0


class Budget:
    """The bytes that blocks of N rows of D values, with k1 neighbours each, may take; what cannot be cut goes off it.

    Raises:
        InputError: less than the lists of neighbours of all rows need.
    """

    def __init__(self, limit: int, count: int, dim: int, k1: int) -> None:
        self.count, self.dim, self.k1 = count, dim, k1
        used = resident()
        self.room = limit - used
        # The encoding reads the neighbours of all rows, and makes reciprocal lists of them: int64, and twice int32.
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
        """Rows that are searched for at a time, and rows that they are searched among."""
        keep = self.k1 + 16
        query = 8 * self.dim + 16 * keep + 160 * self.k1 + 64
        target = 8 * self.dim + 64
        room = self.room - FIXED
        return self._rows(room * 3 // 4, query), self._rows(room // 4, target)

    def plain(self) -> int:
        """Rows of features that are read, checked and copied at a time."""
        return self._rows(min(self.room // 4, 64 << 20), 16 * self.dim)

    def index(self) -> int:
        """Bytes that an index of faiss may take: half of what there is."""
        return (self.room - FIXED) // 2

    def candidates(self) -> int:
        """Rows whose candidates, found by an index, are measured at a time."""
        return self._rows(min((self.room - FIXED) // 4, 256 << 20), 8 * self.dim + 96 * (self.k1 + 16))

    def encode(self) -> int:
        """Rows that are encoded at a time: entries of V, members to look at, and features to fetch."""
        per_row = 8 * self.dim + 40 * self.k1 * 8
        return self._rows((self.room - FIXED - self.lists) // 2, per_row)

    def entries(self) -> int:
        """Entries of sparse rows, of 12 bytes, that may be at hand at a time with what is made of them."""
        return max(4096, (self.room - FIXED - 24 * self.count) // 64)
