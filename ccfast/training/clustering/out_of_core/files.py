"""Rows in files of plain numbers, appended block by block and read block by block.

Files are read, not mapped, because mapped pages count as memory of the process until the kernel reclaims them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ccfast._errors import RunError
from ccfast._files import not_written
from ccfast.ops.jaccard import CsrTensors

#: Rows farther apart than this number of bytes are read separately, others together with the bytes between them.
_GAP = 1 << 12

#: Bytes from the first to the last row that are read together.
_SPAN = 1 << 24

#: Entries of sparse rows that are read at a time while skipping to the wanted ones.
_ENTRIES = 1 << 20


class RowFile:
    """A file with rows of ``width`` numbers of one dtype, which begin after ``offset`` bytes."""

    def __init__(self, path: Path, width: int, dtype: str, offset: int = 0) -> None:
        self.path, self.width, self.dtype, self.offset = path, width, np.dtype(dtype), offset
        self.row_bytes = width * self.dtype.itemsize

    def keep(self, rows: int) -> None:
        """Cut off everything after the first ``rows`` rows.

        Raises:
            RunError: the file has fewer rows.
        """
        with open(self.path, "ab") as file:
            size = file.seek(0, os.SEEK_END)
            if size < rows * self.row_bytes:
                raise RunError(
                    f"{self.path}: expected {rows * self.row_bytes:,} bytes of finished work, got {size:,}; "
                    f"remove the folder {self.path.parent} to start again"
                )
            file.truncate(rows * self.row_bytes)

    def append(self, rows: Tensor) -> None:
        """Append rows and flush them to the disk."""
        array = np.ascontiguousarray(rows.cpu().numpy(), dtype=self.dtype)
        try:
            with open(self.path, "ab") as file:
                file.write(array.reshape(-1).view(np.uint8).data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise not_written(self.path, error) from error

    def read(self, begin: int, end: int) -> Tensor:
        """Rows begin .. end - 1, ``[rows, width]``, in the file's dtype."""
        array = np.empty((end - begin, self.width), self.dtype)
        with open(self.path, "rb", buffering=0) as file:
            self._read(file.fileno(), begin, array)
        return torch.from_numpy(array)

    def take(self, rows: Tensor) -> Tensor:
        """The given ``rows``, which are in ascending order."""
        numbers = rows.numpy()
        array = np.empty((len(numbers), self.width), self.dtype)
        with open(self.path, "rb", buffering=0) as file:
            most = max(1, _SPAN // self.row_bytes)
            for first, last in _stretches(numbers, max(1, _GAP // self.row_bytes), most):
                begin, end = int(numbers[first]), int(numbers[last - 1]) + 1
                if end - begin == last - first:
                    self._read(file.fileno(), begin, array[first:last])
                else:
                    between = np.empty((end - begin, self.width), self.dtype)
                    self._read(file.fileno(), begin, between)
                    array[first:last] = between[numbers[first:last] - begin]
        return torch.from_numpy(array)

    def _read(self, descriptor: int, begin: int, array: np.ndarray) -> None:
        view = array.reshape(-1).view(np.uint8).data
        done = 0
        while done < len(view):
            got = os.preadv(descriptor, [view[done:]], self.offset + begin * self.row_bytes + done)
            if got == 0:
                raise RunError(f"{self.path}: became shorter while it was read")
            done += got


def _stretches(numbers: np.ndarray, gap: int, most: int) -> Iterator[tuple[int, int]]:
    """Ranges first .. last - 1 of ascending numbers: gaps of at most ``gap``, and a span below ``most``."""
    apart = np.diff(numbers)
    ends = np.flatnonzero((apart > gap) | (np.diff(numbers // most) > 0)) + 1
    first = 0
    for last in [*ends.tolist(), len(numbers)]:
        if last > first:
            yield first, last
        first = last


class CsrFile:
    """Sparse rows with N columns in three files: entries per row, and column and value of every entry."""

    def __init__(self, stem: Path, columns: int, column_dtype: str = "int32") -> None:
        self.columns = columns
        self.counts = RowFile(stem.with_suffix(".counts"), 1, "int32")
        self.col = RowFile(stem.with_suffix(".columns"), 1, column_dtype)
        self.values = RowFile(stem.with_suffix(".values"), 1, "float32")
        self._crow: Tensor | None = None

    def keep(self, rows: int) -> None:
        """Cut off everything after the first ``rows`` rows."""
        self.counts.keep(rows)
        entries = int(self.counts.read(0, rows).sum()) if rows else 0
        self.col.keep(entries)
        self.values.keep(entries)
        self._crow = None

    def append(self, csr: CsrTensors) -> None:
        """Append the rows of ``csr`` (crow, col, values)."""
        crow, col, values = csr
        self.col.append(col)
        self.values.append(values)
        self.counts.append(crow.diff())  # written last, so that counted rows are complete
        self._crow = None

    def crow(self) -> Tensor:
        """The start of each row, and the end: ``[rows + 1]`` int64."""
        if self._crow is None:
            rows = self.counts.path.stat().st_size // self.counts.row_bytes
            crow = torch.zeros(rows + 1, dtype=torch.int64)
            torch.cumsum(self.counts.read(0, rows)[:, 0], 0, dtype=torch.int64, out=crow[1:])
            self._crow = crow
        return self._crow

    def rows(self, begin: int, end: int) -> CsrTensors:
        """Rows begin .. end - 1; crow begins with 0."""
        crow = self.crow()[begin : end + 1]
        first, last = int(crow[0]), int(crow[-1])
        return crow - first, self.col.read(first, last)[:, 0].long(), self.values.read(first, last)[:, 0]

    def only(self, rows: Tensor) -> CsrTensors:
        """All rows, but only ``rows`` [m], ascending, with their entries; the others are empty."""
        crow = self.crow()
        counts = torch.zeros(self.columns, dtype=torch.int64)
        counts[rows] = crow.diff()[rows]
        compact = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        col = torch.empty(int(compact[-1]), dtype=torch.int64)
        values = torch.empty(len(col))
        wanted = torch.zeros(self.columns, dtype=torch.bool)
        wanted[rows] = True
        for begin, end in self.stretches(_ENTRIES):
            inside = wanted[begin:end].repeat_interleave(crow[begin : end + 1].diff())
            if inside.any():
                place = slice(int(compact[begin]), int(compact[end]))
                _, some_col, some_values = self.rows(begin, end)
                col[place], values[place] = some_col[inside], some_values[inside]
        return compact, col, values

    def stretches(self, most: int) -> Iterator[tuple[int, int]]:
        """Ranges begin .. end - 1 that cover all rows, each with at most ``most`` entries or one row."""
        crow, begin = self.crow(), 0
        while begin < len(crow) - 1:
            end = int(torch.searchsorted(crow, crow[begin] + most, right=True)) - 1
            end = max(begin + 1, end)
            yield begin, end
            begin = end
