"""Paths given by the user, and files that are written completely or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ccfast._errors import InputError

if TYPE_CHECKING:
    import numpy as np

#: The content of a file: text (as UTF-8), bytes, or a function that writes to the open file.
Content = str | bytes | Callable[[BinaryIO], Any]

#: The beginning and end of the names of unfinished files.
PREFIX, SUFFIX = ".ccfast-", ".tmp"

#: Paths below these are open files of the process, which cannot be replaced.
_OPEN_FILES = ("/dev/fd/", "/dev/std", "/proc/")

#: The error numbers of a full disk, a quota and a limit of file size; torch's errors have no number.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None)

_NO_CHARACTER = re.compile("[\ud800-\udfff]")
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def given_path(option: str, path: str | os.PathLike[str]) -> Path:
    """The path that the user gave for ``option``, with ``~`` expanded.

    Raises:
        InputError: an empty path, which a shell makes from a variable that is not set.
    """
    text = os.fspath(path)
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        hint = " (is a shell variable not set?)" if text == "" else ""
        raise InputError(f"{option}: expected a path, got {text!r}{hint}")
    expanded = Path(os.path.expanduser(text))
    try:
        expanded.exists()
    except OSError as error:  # a name that is too long, a folder that is not readable
        raise InputError(f"{option}: {text[:200]!r}: {error.strerror}") from error
    return expanded


def given_output(option: str, path: str | os.PathLike[str], endings: tuple[str, ...] = ()) -> Path:
    """:func:`given_path` for an output file, checked before the work is done.

    Raises:
        InputError: an ending that is not one of ``endings``, a folder, or a path where no file can be made.
    """
    target = given_path(option, path)
    if endings and target.suffix not in endings:
        raise InputError(f"{option}: expected a file that ends in {' or '.join(endings)}, got {path}")
    if target.is_dir():
        raise InputError(f"{option}: expected a file, got the folder {target}")
    if not _is_open_file(target):
        folder = _followed(target).parent
        if not folder.is_dir():
            raise InputError(f"{option}: no such folder: {folder}; {target} cannot be written")
        try:
            with _temporary(folder):
                pass
        except OSError as error:
            raise InputError(f"{option}: {target} cannot be written: {error.strerror or error}") from error
    return target


def keep_inputs(option: str, output: Path, inputs: dict[str, str | os.PathLike[str] | None]) -> None:
    """Refuse to write ``output``, given by ``option``, over a file that the command reads.

    Args:
        inputs: the name and the path of each file or folder that is read; None: it is not given.

    Raises:
        InputError: it is one of them.
    """
    for name, path in inputs.items():
        if path is not None and os.path.isfile(path) and os.path.exists(output) and os.path.samefile(path, output):
            raise InputError(f"{option}: expected another file than {name}, got {output}, which would be overwritten")


def write_whole(path: Path, content: Content, previous: Path | None = None) -> None:
    """Write ``content`` to ``path`` completely, or leave the existing file unchanged.

    A symbolic link is kept, and its target is written. Devices and pipes are written to directly. With ``previous`` the
    old file gets that name.

    Raises:
        OSError: it cannot be written.
    """
    write_all_whole({path: content}, {} if previous is None else {path: previous})


def write_all_whole(contents: dict[Path, Content], previous: dict[Path, Path] | None = None) -> None:
    """:func:`write_whole` for several files that belong together; they are renamed only when all are on the disk."""
    with contextlib.ExitStack() as stack:
        moves = []
        for path, content in contents.items():
            if _is_open_file(path):
                _write_to(path, path, content)
                continue
            target = _followed(path)
            if target.is_dir():
                raise IsADirectoryError(f"{path}: cannot be written: it is a folder")
            try:
                temporary = stack.enter_context(_temporary(target.parent))
            except OSError as error:
                raise not_written(path, error) from error
            _write_to(temporary, path, content)
            if target.exists():
                with contextlib.suppress(OSError):
                    shutil.copymode(target, temporary)
            moves.append((path, temporary, target))
        for path, temporary, target in moves:
            try:
                if previous and path in previous and target.exists():
                    os.replace(target, previous[path])
                os.replace(temporary, target)
            except OSError as error:
                raise not_written(path, error) from error
        for folder in {target.parent for _, _, target in moves}:
            sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Flush the names in ``folder`` to the disk, or a crash can undo a rename. Some file systems cannot do this."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_unfinished(folder: Path) -> None:
    """Remove the unfinished files of a killed :func:`write_whole` in ``folder``; no process may be writing there."""
    for path in folder.glob(f"{PREFIX}*{SUFFIX}"):
        path.unlink(missing_ok=True)


def array_content(array: np.ndarray) -> Content:
    """``array`` as a .npy file, for :func:`write_whole`; also works with pipes."""
    import numpy as np

    array = np.ascontiguousarray(array)

    def write(file: BinaryIO) -> None:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.reshape(-1).view(np.uint8).data)

    return write


def as_unicode(text: str) -> str:
    r"""``text`` with bytes of a file name that are not UTF-8 as ``\xff``; Python keeps such bytes as surrogates."""
    return _NO_CHARACTER.sub(_escaped, text)


def printable(text: str) -> str:
    r""":func:`as_unicode` for a terminal: also writes control characters, except tabs and line ends, as ``\x1b``."""
    return _UNPRINTABLE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # Python's "surrogateescape"
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _followed(path: Path) -> Path:
    """The file that ``path`` names, with symbolic links resolved; it need not exist."""
    return Path(os.path.realpath(path))


def _is_open_file(path: Path) -> bool:
    """Whether ``path`` must be written to directly: a device, a pipe, or an open file of this process."""
    if os.path.abspath(path).startswith(_OPEN_FILES):
        return True
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


@contextlib.contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    """A new empty file in ``folder`` with the usual mode of new files; removed at the end if it still exists."""
    path = folder / f"{PREFIX}{secrets.token_hex(8)}{SUFFIX}"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _write_to(file: Path, path: Path, content: Content) -> None:
    """Write ``content`` to ``file`` and flush it to the disk; errors name ``path``."""
    try:
        with open(file, "wb") as opened:
            if callable(content):
                content(opened)
            else:
                opened.write(as_unicode(content).encode() if isinstance(content, str) else content)
            opened.flush()
            with contextlib.suppress(*([OSError] if _is_open_file(file) else [])):  # pipes cannot be synced
                os.fsync(opened.fileno())
    except BrokenPipeError:
        raise
    except OSError as error:
        raise not_written(path, error) from error


def not_written(path: Path, error: OSError) -> OSError:
    """The error to raise if writing ``path`` failed with ``error``; its message is for the user."""
    reason = error.strerror or str(error).partition("\n")[0]
    hint = " (is the disk full?)" if error.errno in _FULL else ""
    told = type(error)(f"{path}: cannot be written{hint}: {reason}")
    told.errno = error.errno
    return told
