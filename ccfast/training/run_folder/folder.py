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
CLUSTERS, PAGE = "clusters.csv", "report.html"
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

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that training writes."""
        return self.config, self.metrics, self.checkpoint, self.previous, self.best, self.best_safe

    def held(self) -> list[str]:
        """The names of those :attr:`files` that already exist in the folder."""
        return [file.name for file in self.files if os.path.lexists(file)]

    def replaced_at_the_end(self) -> list[str]:
        """The names of the files in the folder that the end of a run would replace."""
        return [name for name in (CURVES, CLUSTERS, PAGE) if os.path.lexists(self.path / name)]

    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint to resume from."""
        return self.checkpoint.exists() or self.previous.exists()

    def append(self, record: Record) -> None:
        """Append a line to metrics.jsonl, completely or not at all."""
        left = memoryview(as_text([record]).encode())
        with open(self.metrics, "ab", buffering=0) as file:  # when closed, a buffer would write again what failed
            end = file.tell()
            try:
                while left:
                    left = left[file.write(left) :]
                os.fsync(file.fileno())  # before the checkpoint, which completes the epoch
            except OSError as error:
                os.truncate(self.metrics, end)
                raise OSError(f"{self.metrics}: cannot be written (is the disk full?): {error.strerror}") from error
        sync_folder(self.path)

    def take_up(self, epoch: int) -> list[Record]:
        """Keep the records up to ``epoch`` in metrics.jsonl and return them; later epochs will be repeated.

        If lines are damaged, the intact ones are kept, and the original file gets another name.
        """
        found = read_records(self.metrics)
        if found.faults:
            log.warning("%s: %s; the intact lines are kept, and the original file is now %s",
                        self.metrics, found.told(), set_aside(self.metrics).name)  # fmt: skip
        records = [record for record in found.records if record["epoch"] <= epoch]
        missing = sorted(set(range(epoch + 1)) - {record["epoch"] for record in records})
        if missing:
            listed = ", ".join(map(str, missing[:NAMED])) + (", ..." if len(missing) > NAMED else "")
            log.warning("%s: has no record of epoch %s", self.metrics, listed)
        write_whole(self.metrics, as_text(records))
        return records


def set_aside(path: Path) -> Path:
    """Copy ``path`` to another name, which is returned, without overwriting anything."""
    names = (path.with_name(f"{path.stem}.damaged-{number}{path.suffix}") for number in count(1))
    aside = next(name for name in names if not os.path.lexists(name))
    if path.is_file():
        shutil.copy2(path, aside)  # the file itself stays until a repaired one replaces it
    else:
        path.rename(aside)
    return aside


def checkpoint_file(path: str | Path) -> Path:
    """``path`` itself, or the file of the encoder in a run folder: best.pt, or else checkpoint.pt."""
    path = given_path("RUN_OR_CHECKPOINT", path)
    if not path.is_dir():
        return path
    folder = RunFolder(path)
    file = next((file for file in (folder.best, folder.checkpoint) if file.exists()), None)
    if file is None:
        raise InputError(f"{path}: not a run folder: it has neither {BEST} nor {CHECKPOINT}")
    return file
