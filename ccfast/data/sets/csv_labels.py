"""Identities and cameras of a table: integers are kept, and names are numbered."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ccfast._files import printable
from ccfast.data.parts import LARGEST
from ccfast.data.sets.three_folders import JUNK

_INTEGER = re.compile(r"[+-]?[0-9]+")

#: An int64 has at most this many digits; Python refuses to convert a text of thousands of digits.
_DIGITS = 19


class WrongLine(Exception):
    """The error in one line of the table."""


class Numbers:
    """The numbers for the cells of a column: the integers in them, or, if one is no integer, a number for each name.

    All parts of the data set share the numbers, so that a name in query and gallery is the same identity.
    """

    def __init__(self, column: str, cells: Iterable[tuple[int, str]]) -> None:
        """``cells``: the number of each line and its text, which is empty if unknown."""
        self.column = column
        known = [(line, cell) for line, cell in cells if cell and not self._is_junk(cell)]
        self._first_name = next(((line, cell) for line, cell in known if not _INTEGER.fullmatch(cell)), None)
        names = [] if self._first_name is None else sorted({cell for _, cell in known})
        self._numbers = {name: number for number, name in enumerate(names)}

    def number(self, cell: str) -> int | None:
        """The number for a cell; None if it is empty."""
        if not cell:
            return None
        if self._is_junk(cell):
            return JUNK
        return self._numbers[cell] if self._numbers else self._integer(cell)

    def notes(self) -> list[str]:
        """That names were numbered, and the first of them, which may be a mistake among integers."""
        if self._first_name is None:
            return []
        line, name = self._first_name
        return [
            f"{self.column}: {len(self._numbers):,} names, numbered from 0 in sorted order, because "
            f"'{printable(name)[:60]}' in line {line} is not an integer"
        ]

    def _is_junk(self, cell: str) -> bool:
        return self.column == "identity" and _INTEGER.fullmatch(cell) is not None and _value(cell) == JUNK

    def _integer(self, cell: str) -> int:
        if not 0 <= _value(cell) <= LARGEST:
            least = "0, or -1 for junk," if self.column == "identity" else "0"
            raise WrongLine(
                f"{self.column}: expected an integer of at least {least} and at most {LARGEST}, or names, "
                f"got {cell[:60]!r}; a letter before each number makes it a name"
            )
        return _value(cell)


def _value(cell: str) -> int:
    """The integer in ``cell``, or a larger one than any int64."""
    return int(cell) if len(cell.lstrip("+-")) <= _DIGITS else LARGEST + 1
