"""Images listed in a table: a .csv file with the column path and, if known, identity, camera and split."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

from ccfast._errors import InputError
from ccfast._files import printable
from ccfast.data.findings import Findings, Reason
from ccfast.data.image_files import NAMED
from ccfast.data.parts import GALLERY, LARGEST, QUERY, TRAIN, Label, photographs, read_parts
from ccfast.data.reid_data import Part, ReIDData
from ccfast.data.sets.three_folders import JUNK
from ccfast.data.text import read_text

COLUMNS = ("path", "identity", "camera", "split")
SPLITS = (TRAIN, QUERY, GALLERY)
EXPECTED = "expected a table whose first line names its columns: path and, if known, identity, camera, split"

#: Possible separators of cells; the most frequent one in the first line is used.
_SEPARATORS = (",", ";", "\t", "|")

#: Excel's declaration of the separator, in a separate line before the names of the columns.
_SEPARATOR_LINE = re.compile(r"sep=(.)(?:\r\n|\r|\n)", re.IGNORECASE)


class Line(NamedTuple):
    """An image of the table, with the number of its line."""

    number: int
    path: Path
    split: str
    label: Label


class _Wrong(Exception):
    """The error in one line."""


def load_csv(data_dir: str | Path, *, bad_images: str = "refuse", workers: int = 0) -> ReIDData:
    """The images listed in the table ``data_dir``, a .csv file.

    Columns, in any order: ``path`` (relative to the table's folder, or absolute), ``identity`` and ``camera``
    (integers; an empty cell means unknown), ``split`` (train, query or gallery; without this column all are train).
    A table may list only query and gallery, for the evaluation; its training part is then empty.

    Raises:
        InputError: no such table, a missing column, or wrong lines, each with its number.
    """
    file, findings = Path(data_dir), Findings()
    if file.is_dir():
        raise InputError(f"--data-dir: {file} is a folder; {EXPECTED}, in a .csv file")
    if not file.exists():
        raise InputError(f"--data-dir: no such folder or file: {file}; {EXPECTED}")
    listed = _read_lines(file, findings, skip_missing=bad_images == "skip")
    _check_known(file, listed, findings)
    labels = {line.path: line.label for line in listed}
    files = {split: [line.path for line in listed if line.split == split] for split in SPLITS}
    files = {split: paths for split, paths in files.items() if paths}
    parts = read_parts(files, labels.__getitem__, findings, bad_images=bad_images, workers=workers)
    parts[TRAIN] = parts.get(TRAIN) or Part([], None)
    return photographs("csv", parts, findings)


def _read_lines(file: Path, findings: Findings, *, skip_missing: bool) -> list[Line]:
    """All lines of the table; one error reports all wrong lines."""
    rows = _rows(file)
    header = next(rows, None)
    if header is None:
        raise InputError(f"{file}: is empty; {EXPECTED}")
    columns = _columns(file, *header, findings)
    lines: dict[str, Line] = {}
    wrong: list[str] = []
    for number, cells in rows:
        try:
            line = _line(file.parent, number, _cells(cells, columns))
            if line.label.id == JUNK:
                findings.leave_out(Reason.JUNK, line.path.name)
                continue
            place = os.path.normpath(line.path)
            if place in lines:
                raise _Wrong(f"path: {line.path} is already in line {lines[place].number}")
            if not line.path.is_file():
                what = "is a folder" if line.path.is_dir() else "no such file"
                if not skip_missing:
                    raise _Wrong(f"path: {line.path}: {what}")
                findings.leave_out(Reason.MISSING, f"{file}, line {number}: {line.path}")
                continue
            lines[place] = line
        except _Wrong as error:
            wrong.append(f"{file}, line {number}: {error}")
    if wrong:
        raise InputError(_together(wrong))
    if not lines:
        raise InputError(f"{file}: lists no image{findings.summary()}; {EXPECTED}")
    return list(lines.values())


def _together(wrong: list[str]) -> str:
    """One message about all wrong lines, which names the first ones."""
    named = [printable(line) for line in wrong[:NAMED]]
    if len(wrong) == 1:
        return named[0]
    more = f"\n  and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
    return f"{len(wrong)} lines are wrong:\n" + "\n".join(f"  {line}" for line in named) + more


def _rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """The number of the first line of each row, and its cells; empty rows are skipped."""
    text, before = read_text(file), 0
    if said := _SEPARATOR_LINE.match(text):
        text, separator, before = text[said.end() :], said[1], 1
    else:
        first = next((line for line in re.split(r"[\r\n]+", text) if line.strip()), "")
        separator = max(_SEPARATORS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    while True:
        number = before + reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise InputError(f"{file}, line {number}: not a row of a table: {error}") from error
        if cells is None:
            return
        if any(cell.strip() for cell in cells):
            yield number, [cell.strip() for cell in cells]


def _columns(file: Path, number: int, names: list[str], findings: Findings) -> list[str]:
    """The names of the columns; unknown ones are reported."""
    columns = [name.lower() for name in names]
    place = f"{file}, line {number}"
    if "path" not in columns:
        raise InputError(printable(f"{place}: the column path is missing, got {', '.join(names)[:200]}; {EXPECTED}"))
    if twice := [name for name in COLUMNS if columns.count(name) > 1]:
        raise InputError(f"{place}: the column {twice[0]} appears {columns.count(twice[0])} times")
    if unread := [name for name in names if name.lower() not in COLUMNS and name]:
        findings.warnings.append(f"columns that are not read: {printable(', '.join(unread))[:200]}; {EXPECTED}")
    return columns


def _cells(cells: list[str], columns: list[str]) -> dict[str, str]:
    """The cells of a row by column name; missing cells at the end are empty."""
    if any(cells[len(columns) :]):
        raise _Wrong(f"{len(cells)} cells, expected {len(columns)}, as the first line has; quote what has a separator")
    return dict(zip(columns, cells + [""] * (len(columns) - len(cells)), strict=False))


def _line(folder: Path, number: int, cells: dict[str, str]) -> Line:
    if not cells["path"]:
        raise _Wrong("path: expected an image, got an empty cell")
    split = cells.get("split", TRAIN)
    if split.lower() not in SPLITS:
        raise _Wrong(f"split: expected {', '.join(SPLITS[:-1])} or {SPLITS[-1]}, got {split[:60]!r}")
    label = Label(_integer("identity", cells), _integer("camera", cells))
    return Line(number, _path(folder, cells["path"]), split.lower(), label)


def _path(folder: Path, cell: str) -> Path:
    """The path in a cell, relative to the table's ``folder``; Windows paths are read too."""
    path = folder / cell
    if "\\" in cell and not path.exists():
        path = folder / PureWindowsPath(cell).as_posix()
    return path


def _integer(name: str, cells: dict[str, str]) -> int | None:
    """The integer in a cell; None if it is empty or its column is missing."""
    cell = cells.get(name, "")
    if not cell:
        return None
    lowest = JUNK if name == "identity" else 0
    if not re.fullmatch(r"[+-]?[0-9]{1,19}", cell) or not lowest <= int(cell) <= LARGEST:
        least = "0, or -1 for junk," if name == "identity" else "0"
        raise _Wrong(f"{name}: expected an integer of at least {least} and at most {LARGEST}, got {cell[:60]!r}")
    return int(cell)


def _check_known(file: Path, listed: list[Line], findings: Findings) -> None:
    """Refuse a part with some known and some unknown identities or cameras; for train, ignore its identities.

    Identities of the training part are never used to train.
    """
    for split in SPLITS:
        lines = [line for line in listed if line.split == split]
        for name, known in (("identity", lambda line: line.label.id), ("camera", lambda line: line.label.cam)):
            unknown = [line for line in lines if known(line) is None]
            if not unknown or len(unknown) == len(lines):
                continue
            at = f"{file}, line {unknown[0].number}"
            if (split, name) != (TRAIN, "identity"):
                raise InputError(
                    f"{at}: {name} is empty, and in {len(lines) - len(unknown)} other line(s) of {split} it is not"
                )
            findings.warnings.append(
                f"{at}: identity is empty, as in {len(unknown)} of the {len(lines)} lines of train: the identities of "
                "train count as unknown"
            )
            for index, line in enumerate(listed):
                if line.split == split:
                    listed[index] = line._replace(label=line.label._replace(id=None))
    first = {split: line for split in (QUERY, GALLERY) for line in listed if line.split == split}
    if len({line.label.cam is None for line in first.values()}) > 1:
        raise InputError(f"{file}: camera is known in one of query and gallery only; expected it in both or in neither")
