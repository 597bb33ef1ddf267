"""The finished blocks of a clustering, so that a second start can continue."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from ccfast._errors import InputError, RunError
from ccfast._files import remove_unfinished, write_whole
from ccfast.training.run_folder.lock import FolderLock

log = logging.getLogger(__name__)

STATE = "state.json"

#: The endings of the other files: rows of a matrix, and sparse rows in three files.
SUFFIXES = (".rows", ".counts", ".columns", ".values")


class WorkFolder:
    """The folder of a clustering's files, locked by this process, and the number of finished rows of each stage.

    ``subject`` describes the data and the options; the files of another subject are removed. After an error the folder
    is kept; :meth:`remove` removes it at the end.

    Raises:
        InputError: it cannot be made or written to, is in use, or contains files that do not belong to a clustering.
    """

    def __init__(self, path: Path, subject: dict[str, Any]) -> None:
        self.path, self._removed = path, False
        try:
            path.mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(f"--work-dir: {path} cannot be made: {error.strerror or error}") from error
        self._lock = FolderLock(path, "--work-dir")
        try:
            self._state = self._taken_up(subject)
            self._write()
        except BaseException:
            self._lock.release()
            raise

    def _taken_up(self, subject: dict[str, Any]) -> dict[str, Any]:
        remove_unfinished(self.path)
        new = {"subject": subject, "done": {}}
        held = [name for name in sorted(os.listdir(self.path)) if name != self._lock.path.name]
        if not held:
            return new
        try:
            state = json.loads((self.path / STATE).read_text(encoding="utf-8"))
            before, done = state["subject"], state["done"]
            valid = all(isinstance(rows, int) and rows >= 0 for rows in done.values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            valid, before = False, None
        if not valid:
            raise InputError(
                f"--work-dir: {self.path} holds other files than those of a clustering ({', '.join(held[:3])}); pass "
                "another folder, or remove it"
            )
        if before != json.loads(json.dumps(subject)):
            log.warning("%s: its files belong to other features or options; starting again", self.path)
            self._clear()
            return new
        return state

    def _clear(self) -> None:
        """Remove the files of a clustering; other files are kept."""
        for entry in self.path.iterdir():
            if entry.name == STATE or entry.suffix in SUFFIXES:
                entry.unlink()

    def __enter__(self) -> WorkFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Release the folder, and remove it if nothing was finished."""
        if self._state["done"]:
            self._lock.release()
        elif not self._removed:
            self.remove()

    def done(self, stage: str) -> int:
        """Rows that ``stage`` has finished."""
        return self._state["done"].get(stage, 0)

    def mark(self, stage: str, rows: int) -> None:
        """``stage`` has finished ``rows`` rows, which are on the disk."""
        self._state["done"][stage] = rows
        self._write()

    def _write(self) -> None:
        write_whole(self.path / STATE, json.dumps(self._state))

    def remove(self) -> None:
        """Remove the files, and the folder if it is then empty."""
        self._state["done"], self._removed = {}, True
        self._clear()
        self._lock.release()
        with contextlib.suppress(OSError):
            self.path.rmdir()


def subject_of(features: Path, **options: Any) -> dict[str, Any]:
    """The identity of a clustering: the file in its current state, and the options that affect results."""
    try:
        status = features.stat()
    except OSError as error:
        raise RunError(f"{features}: {error.strerror}") from error
    return {"file": str(features.resolve()), "size": status.st_size, "time": status.st_mtime_ns, **options}
