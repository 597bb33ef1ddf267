"""The report of ``ccfast bench-train``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

ALONE = "encoder alone, synthetic images"
CACHED = "training step, cached images"
LOADED = "training step, DataLoader"
METHOD = "loss and memory update alone"
EXTRACT_CACHED = "extraction, cached images"
EXTRACT_LOADED = "extraction, DataLoader"

#: The rows that are compared with the encoder alone.
STEPS = (ALONE, CACHED, LOADED)
#: The stages of an epoch that belong to the encoder and the data; the others belong to the method.
ENCODER_STAGES = ("extract", "encoder and data")


@dataclass(frozen=True)
class Row:
    """One measurement: ``seconds`` for a step of ``images`` images, the median over the rounds."""

    name: str
    images: int
    seconds: float

    @property
    def images_per_second(self) -> float:
        """Images per second."""
        return self.images / self.seconds


@dataclass(frozen=True)
class Report:
    """The ``rows``, and the seconds of each stage of an epoch of ``iters`` steps with cached images."""

    rows: dict[str, Row]
    epoch: dict[str, float]
    iters: int

    @property
    def method_share(self) -> float:
        """The share of an epoch that goes to pseudo-labels, memory and loss."""
        method = sum(seconds for stage, seconds in self.epoch.items() if stage not in ENCODER_STAGES)
        return method / sum(self.epoch.values())

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        rows = [asdict(row) | {"images_per_second": row.images_per_second} for row in self.rows.values()]
        return {"rows": rows, "epoch_seconds": self.epoch, "iters": self.iters, "method_share": self.method_share}

    def __str__(self) -> str:
        return "\n".join([*self._table(), "", *self._stages()])

    def _table(self) -> list[str]:
        lines = [f"{'':34}{'images/s':>10}{'ms per step':>13}{'of encoder':>12}"]
        for name, row in self.rows.items():
            share = f"{row.images_per_second / self.rows[ALONE].images_per_second:.1%}" if name in STEPS else ""
            lines.append(f"{name:34}{row.images_per_second:10.1f}{1e3 * row.seconds:13.2f}{share:>12}")
        return lines

    def _stages(self) -> list[str]:
        total = sum(self.epoch.values())
        stages = [f"  {stage:32}{seconds:10.3f} s{seconds / total:12.1%}" for stage, seconds in self.epoch.items()]
        return [
            f"an epoch of {self.iters} steps with cached images: {total:.2f} s",
            *stages,
            f"pseudo-labels, memory and loss: {self.method_share:.1%}",
        ]
