"""The run folder: config.yaml, metrics.jsonl, checkpoint.pt and the one before it, best.pt, curves.png."""

from __future__ import annotations

import logging
import os
import shutil
from itertools import count
from pathlib import Path

from ccfast._errors import InputError
from ccfast._files import given_path, sync_folder, write_whole
from ccfast.training.run_folder.records import NAMED, Record, as_text, read_records

log = logging.getLogger(__name__)

CONFIG, METRICS, CURVES = "config.yaml", "metrics.jsonl", "curves.png"
CHECKPOINT, PREVIOUS, BEST = "checkpoint.pt", "checkpoint.previous.pt", "best.pt"
BEST_SAFE = "best.safetensors"


class RunFolder:
    """Paths and records of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config, self.metrics = path / CONFIG, path / METRICS
        self.checkpoint, self.previous = path / CHECKPOINT, path / PREVIOUS
        self.best, self.curves = path / BEST, path / CURVES
        self.best_safe = path / BEST_SAFE

    def held(self) -> list[str]:
        """The names of the files of a run that are in the folder already."""
        files = (self.config, self.metrics, self.checkpoint, self.previous, self.best, self.best_safe)
        return [file.name for file in files if os.path.lexists(file)]

    def has_checkpoint(self) -> bool:
        """Whether there is something to go on with."""
        return self.checkpoint.exists() or self.previous.exists()

    def append(self, record: Record) -> None:
        """One more line of metrics.jsonl, whole or not at all."""
        left = memoryview(as_text([record]).encode())
        with open(self.metrics, "ab", buffering=0) as file:  # a buffer would write again what had failed when it closes
            end = file.tell()
            try:
                while left:
                    left = left[file.write(left) :]
                os.fsync(file.fileno())  # before the checkpoint, which makes the epoch whole
            except OSError as error:
                os.truncate(self.metrics, end)
                raise OSError(f"{self.metrics}: cannot be written (is the disk full?): {error.strerror}") from error
        sync_folder(self.path)

    def take_up(self, epoch: int) -> list[Record]:
        """Leave the records up to ``epoch`` in metrics.jsonl, and return them; later epochs are done again.

        Where lines are damaged the whole ones are kept, and the file as it was gets another name.
        """
        found = read_records(self.metrics)
        if found.faults:
            log.warning("%s: %s; what is whole is kept, and the file as it was is now %s",
                        self.metrics, found.told(), set_aside(self.metrics).name)  # fmt: skip
        records = [record for record in found.records if record["epoch"] <= epoch]
        missing = sorted(set(range(epoch + 1)) - {record["epoch"] for record in records})
        if missing:
            listed = ", ".join(map(str, missing[:NAMED])) + (", ..." if len(missing) > NAMED else "")
            log.warning("%s: has no record of epoch %s", self.metrics, listed)
        write_whole(self.metrics, as_text(records))
        return records


def set_aside(path: Path) -> Path:
    """Keep ``path`` as it is under another name, which is returned, without overwriting anything."""
    names = (path.with_name(f"{path.stem}.damaged-{number}{path.suffix}") for number in count(1))
    aside = next(name for name in names if not os.path.lexists(name))
    if path.is_file():
        shutil.copy2(path, aside)  # the file itself stays until a better one takes its place
    else:
        path.rename(aside)
    return aside


def checkpoint_file(path: str | Path) -> Path:
    """``path`` itself, or the file in a run folder that holds its encoder: best.pt, else checkpoint.pt."""
    path = given_path("RUN_OR_CHECKPOINT", path)
    if not path.is_dir():
        return path
    folder = RunFolder(path)
    file = next((file for file in (folder.best, folder.checkpoint) if file.exists()), None)
    if file is None:
        raise InputError(f"{path}: not a run folder: it holds neither {BEST} nor {CHECKPOINT}")
    return file
