"""A lock on a run folder, because two runs in one folder would overwrite each other's checkpoints."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import socket
import weakref
from pathlib import Path
from types import TracebackType

from ccfast._errors import InputError

log = logging.getLogger(__name__)

NAME = ".lock"

#: The errors of flock on a file system without locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)

_held: weakref.WeakSet[FolderLock] = weakref.WeakSet()


class FolderLock:
    """Holds ``folder``/.lock until this process ends, or until :meth:`release`, which removes the file.

    ``option``: the option that names the folder, for the errors.

    The system releases the lock when the process ends for any reason; a file that was left does not block others.

    Raises:
        InputError: another process holds it, or no file can be written in ``folder``.
    """

    def __init__(self, folder: Path, option: str = "--run") -> None:
        self.path, self.option = folder / NAME, option
        self._descriptor: int | None = None
        try:
            while self._descriptor is None:
                self._descriptor = self._acquired()
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
        except OSError as error:
            self.release()
            raise InputError(f"{option}: {folder} cannot be written to: {error.strerror or error}") from error
        _held.add(self)

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()

    def _acquired(self) -> int | None:
        """The open, locked file; None if its last holder has just removed it."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise InputError(
                f"{self.option}: {self.path.parent} is in use by {holder}; wait until that ends, or pass another folder"
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(descriptor)
                raise
            log.warning("%s: its file system has no locks; make sure that no other run writes to it", self.path.parent)
            return descriptor
        if _is_at(descriptor, self.path):
            if not _is_own(descriptor):
                os.close(descriptor)
                raise InputError(
                    f"{self.option}: {self.path} is not a file of ccfast; remove it, or pass another folder"
                )
            return descriptor
        os.close(descriptor)
        return None

    def release(self) -> None:
        """Remove the file and release the folder."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                self.path.unlink()
            self.forget()

    def forget(self) -> None:
        """Close the file; the lock is released when all processes that have it open have closed it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _holder(descriptor: int) -> str:
    return _holder_in(os.pread(descriptor, 1000, 0)) or "another process"


def _holder_in(content: bytes) -> str | None:
    try:
        holder = json.loads(content)
        return f"another process (pid {int(holder['pid'])} on {holder['host']})"
    except (ValueError, TypeError, KeyError):
        return None


def _is_own(descriptor: int) -> bool:
    """Whether the file is new, or was left by a process of ccfast."""
    content = os.pread(descriptor, 1000, 0)
    return not content or _holder_in(content) is not None


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _in_child() -> None:
    """Loading processes must not keep the lock after their parent was killed."""
    for lock in list(_held):
        lock.forget()


os.register_at_fork(after_in_child=_in_child)
