"""The numbers of a run's epochs as TensorBoard scalars."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ccfast._optional import import_optional

#: The folder of the event files in the run folder.
FOLDER = "tensorboard"


class Scalars:
    """Writes each epoch's record below ``folder``/tensorboard; the step is the epoch.

    A resumed run repeats its unfinished epochs; the earlier records of these epochs are no longer shown.

    Args:
        folder: the run folder.

    Raises:
        InputError: the package tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        self._make = import_optional("torch.utils.tensorboard", "--tensorboard", "tensorboard").SummaryWriter
        self._folder = folder / FOLDER
        self._writer: Any = None

    def __call__(self, record: dict[str, Any]) -> None:
        """Write the numbers of ``record``, in the format of metrics.jsonl, and flush them to the disk."""
        epoch = record["epoch"]
        if self._writer is None:
            self._writer = self._make(self._folder, purge_step=epoch)
        for tag, value in scalars(record):
            self._writer.add_scalar(tag, value, epoch)
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()


def scalars(record: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers of a record with their tags: ``loss``, ``mAP``, ..., ``seconds/<stage>``; the epoch is the step."""
    for name, value in record.items():
        if isinstance(value, dict):
            yield from ((f"{name}/{part}", number) for part, number in scalars(value))
        elif isinstance(value, int | float) and not isinstance(value, bool) and name != "epoch":
            yield name, value
