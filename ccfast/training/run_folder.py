"""The run folder: config.yaml, metrics.jsonl, checkpoint.pt and the one before it, best.pt, curves.png."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from ccfast._errors import InputError

CONFIG, METRICS, CURVES = "config.yaml", "metrics.jsonl", "curves.png"
CHECKPOINT, PREVIOUS, BEST = "checkpoint.pt", "checkpoint.previous.pt", "best.pt"


class RunFolder:
    """Paths and records of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config, self.metrics = path / CONFIG, path / METRICS
        self.checkpoint, self.previous = path / CHECKPOINT, path / PREVIOUS
        self.best, self.curves = path / BEST, path / CURVES

    @classmethod
    def create(cls, path: str | None, dataset: str) -> RunFolder:
        """The folder of a new run, not made yet; one that holds a run already is refused."""
        folder = cls(Path(path) if path is not None else _fresh(dataset))
        held = [item.name for item in (folder.config, folder.metrics, folder.checkpoint) if item.exists()]
        if held:
            raise InputError(
                f"--run: {folder.path} holds a run already ({', '.join(held)}); "
                "pass --resume to go on with it, or another folder"
            )
        return folder

    @classmethod
    def existing(cls, path: str | None) -> RunFolder:
        """The folder of a run to go on with."""
        if path is None:
            raise InputError("--resume: expected the run folder in --run, got none")
        if not Path(path).is_dir():
            raise InputError(f"--run: no such run folder: {path}")
        return cls(Path(path))

    def make(self) -> None:
        """Make the folder."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--run: {self.path} cannot be made: {error}") from error

    def append(self, record: dict[str, Any]) -> None:
        """One more line of metrics.jsonl."""
        with open(self.metrics, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())  # before the checkpoint, which makes the epoch whole

    def records(self) -> list[dict[str, Any]]:
        """What metrics.jsonl holds; a last line that was cut off does not count."""
        if not self.metrics.exists():
            return []
        records = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return records

    def rewrite(self, records: list[dict[str, Any]]) -> None:
        """Leave ``records`` only: epochs whose checkpoint was never finished are done again."""
        write_whole(self.metrics, "".join(json.dumps(record) + "\n" for record in records))


def write_whole(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def checkpoint_file(path: str | Path) -> Path:
    """``path`` itself, or the file in a run folder that holds its encoder: best.pt, else checkpoint.pt."""
    path = Path(path)
    if not path.is_dir():
        return path
    folder = RunFolder(path)
    file = next((file for file in (folder.best, folder.checkpoint) if file.exists()), None)
    if file is None:
        raise InputError(f"{path}: not a run folder: it holds neither {BEST} nor {CHECKPOINT}")
    return file


def _fresh(dataset: str) -> Path:
    name = f"{dataset}-{time.strftime('%Y%m%d-%H%M%S')}"
    path, number = Path("runs") / name, 2
    while path.exists():
        path, number = Path("runs") / f"{name}-{number}", number + 1
    return path
