"""Lines of the text files of data sets, from any system."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

from ccfast._errors import InputError

#: Byte-order marks and their encodings; UTF-32's little-endian mark begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

_LINE_ENDS = re.compile(r"\r\n|\r|\n")


def text_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Numbers (from 1) and stripped texts of the lines.

    Empty lines and those that begin with # are skipped, and so is a byte-order mark. Without a mark, text is UTF-8;
    invalid bytes are kept, because file names may contain them.

    Raises:
        InputError: the file cannot be read, or is not text.
    """
    for number, line in enumerate(_LINE_ENDS.split(read_text(file)), 1):
        line = line.strip()
        if line and not line.startswith("#"):
            yield number, line


def read_text(file: Path) -> str:
    """The whole text of ``file``, without a byte-order mark, with its own line ends.

    Raises:
        InputError: the file cannot be read, or is not text.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from error
    mark, encoding = next(((mark, name) for mark, name in _MARKS if content.startswith(mark)), (b"", "utf-8"))
    try:
        text = content[len(mark) :].decode(encoding, "surrogateescape")
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not text in {encoding}: {error.reason}") from error
    if "\0" in text:
        raise InputError(f"{file}: expected text in UTF-8, got zero bytes; save the file as UTF-8")
    return text
