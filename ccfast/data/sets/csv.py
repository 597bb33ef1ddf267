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
from ccfast.data.parts import GALLERY, QUERY, TRAIN, Label, photographs, read_parts
from ccfast.data.reid_data import Part, ReIDData
from ccfast.data.sets.csv_labels import Numbers, WrongLine
from ccfast.data.sets.three_folders import JUNK
from ccfast.data.text import read_text

COLUMNS = ("path", "identity", "camera", "split")
SPLITS = (TRAIN, QUERY, GALLERY)

#: The names of the columns in the table of ``ccfast extract``.
ALIASES = {"id": "identity", "cam": "camera", "part": "split"}

EXPECTED = "expected a table whose first line names its columns: path and, if known, identity, camera, split"

#: Possible separators of cells; the most frequent one in the first line is used.
_SEPARATORS = (",", ";", "\t", "|")

#: Excel's declaration of the separator, in a separate line before the names of the columns.
_SEPARATOR_LINE = re.compile(r"sep=(.)(?:\r\n|\r|\n)", re.IGNORECASE)

#: Number of wrong lines that a message lists.
LISTED = 100

#: Bytes that are not UTF-8, as Python keeps them.
_NOT_UTF_8 = re.compile("[\udc80-\udcff]")


class Line(NamedTuple):
    """An image of the table, with the number of its line."""

    number: int
    path: Path
    split: str
    label: Label


def load_csv(data_dir: str | Path, *, bad_images: str = "refuse", workers: int = 0) -> ReIDData:
    """The images listed in the table ``data_dir``, a .csv file.

    Columns, in any order: ``path`` (relative to the table's folder, or absolute), ``identity`` and ``camera``
    (integers, or names, which are numbered; an empty cell means unknown), ``split`` (train, query or gallery; without
    this column all are train). :data:`ALIASES` are read too. A table may list only query and gallery, for the
    evaluation; its training part is then empty.

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
    cells, wrong = _cells_by_line(rows, columns)
    _check_encoding(file, cells)
    numbers = [
        Numbers(name, ((line, row.get(name, "")) for line, row in cells.items())) for name in ("identity", "camera")
    ]
    findings.notes += [note for column in numbers for note in column.notes()]
    lines: dict[str, Line] = {}
    for number, row in cells.items():
        try:
            line = _line(file.parent, number, row, numbers)
            if _is_kept(file, line, lines, findings, skip_missing):
                lines[os.path.normpath(line.path)] = line
        except WrongLine as error:
            wrong[number] = str(error)
    if wrong:
        raise InputError(_together([f"{file}, line {number}: {wrong[number]}" for number in sorted(wrong)]))
    if not lines:
        raise InputError(f"{file}: lists no image{findings.summary()}; {EXPECTED}")
    return list(lines.values())


def _cells_by_line(
    rows: Iterator[tuple[int, list[str]]], columns: list[str]
) -> tuple[dict[int, dict[str, str]], dict[int, str]]:
    """The cells of each line by column, and the errors of the lines that have too many."""
    cells: dict[int, dict[str, str]] = {}
    wrong: dict[int, str] = {}
    for number, row in rows:
        try:
            cells[number] = _cells(row, columns)
        except WrongLine as error:
            wrong[number] = str(error)
    return cells, wrong


def _is_kept(file: Path, line: Line, lines: dict[str, Line], findings: Findings, skip_missing: bool) -> bool:
    """Whether the image of ``line`` is part of the data set; if not, it is counted as left out or it is an error."""
    if line.label.id == JUNK:
        findings.leave_out(Reason.JUNK, line.path.name)
        return False
    if before := lines.get(os.path.normpath(line.path)):
        raise WrongLine(f"path: {line.path} is already in line {before.number}")
    if line.path.is_file():
        return True
    if not skip_missing:
        raise WrongLine(f"path: {line.path}: {'is a folder' if line.path.is_dir() else 'no such file'}")
    findings.leave_out(Reason.MISSING, f"{file}, line {line.number}: {line.path}")
    return False


def _together(wrong: list[str]) -> str:
    """One message about all wrong lines, which names the first ones."""
    named = [printable(line) for line in wrong[:LISTED]]
    if len(wrong) == 1:
        return named[0]
    more = f"\n  and {len(wrong) - LISTED} more" if len(wrong) > LISTED else ""
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
    """The names of the columns; unknown ones are reported, and so are :data:`ALIASES`.

    An alias is not read beside a column of the name that it stands for.
    """
    written = [name.lower() for name in names]
    columns = [other if (other := ALIASES.get(name)) and other not in written else name for name in written]
    place = f"{file}, line {number}"
    if "path" not in columns:
        raise InputError(printable(f"{place}: the column path is missing, got {', '.join(names)[:200]}; {EXPECTED}"))
    if twice := [name for name in COLUMNS if columns.count(name) > 1]:
        raise InputError(f"{place}: the column {twice[0]} appears {columns.count(twice[0])} times")
    if renamed := [f"{name} as {column}" for name, column in zip(written, columns, strict=True) if name != column]:
        findings.notes.append(f"columns that are read: {', '.join(renamed)}")
    if unread := [name for name, column in zip(names, columns, strict=True) if column not in COLUMNS and name]:
        findings.warnings.append(f"columns that are not read: {printable(', '.join(unread))[:200]}; {EXPECTED}")
    return columns


def _cells(cells: list[str], columns: list[str]) -> dict[str, str]:
    """The cells of a row by column name; missing cells at the end are empty."""
    if any(cells[len(columns) :]):
        raise WrongLine(
            f"{len(cells)} cells, expected {len(columns)}, as the first line has; quote what has a separator"
        )
    return dict(zip(columns, cells + [""] * (len(columns) - len(cells)), strict=False))


def _check_encoding(file: Path, rows: dict[int, dict[str, str]]) -> None:
    """Refuse cells that are not UTF-8, unless one names a file: names of files may have any bytes."""
    other_bytes = {
        number: cells
        for number, cells in rows.items()
        if any(_NOT_UTF_8.search(cells.get(name, "")) for name in COLUMNS)
    }
    named = (cells["path"] for cells in other_bytes.values() if _NOT_UTF_8.search(cells["path"]))
    if other_bytes and not any(_path(file.parent, path).is_file() for path in named):
        raise InputError(f'{file}, line {next(iter(other_bytes))}: not UTF-8; save it as "CSV UTF-8"')


def _line(folder: Path, number: int, cells: dict[str, str], numbers: list[Numbers]) -> Line:
    if not cells["path"]:
        raise WrongLine("path: expected an image, got an empty cell")
    split = cells.get("split", TRAIN)
    if split.lower() not in SPLITS:
        raise WrongLine(f"split: expected {', '.join(SPLITS[:-1])} or {SPLITS[-1]}, got {split[:60]!r}")
    label = Label(*(column.number(cells.get(column.column, "")) for column in numbers))
    return Line(number, _path(folder, cells["path"]), split.lower(), label)


def _path(folder: Path, cell: str) -> Path:
    """The path in a cell, relative to the table's ``folder``; Windows paths are read too."""
    path = folder / cell
    if "\\" in cell and not path.exists():
        path = folder / PureWindowsPath(cell).as_posix()
    return path


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
