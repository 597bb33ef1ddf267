"""The options of ``ccfast pretrain``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from ccfast._errors import InputError
from ccfast.training.config import FIELDS, ClusterOptions, TrainConfig, flag
from ccfast.training.recipes import Recipe

#: Options of training without labels that have no effect with labels.
WITHOUT_LABELS_ONLY = (
    *(item.name for item in dataclasses.fields(ClusterOptions)),
    "method", "momentum", "memory", "source", "source_dir", "mean_teacher", "teacher_momentum",
)  # fmt: skip

#: The default temperature of the classification loss.
TEMPERATURE = 0.05


@dataclass
class PretrainConfig(TrainConfig):
    """The options of ``ccfast pretrain``: those of ``ccfast train`` without :data:`WITHOUT_LABELS_ONLY`."""

    command: ClassVar[str] = "pretrain"

    def __post_init__(self) -> None:
        given = [name for name in WITHOUT_LABELS_ONLY if getattr(self, name) != FIELDS[name].default]
        if given:
            raise InputError(f"{', '.join(map(flag, given))}: only for training without labels")
        super().__post_init__()

    def _recipe(self) -> Recipe:
        return {**super()._recipe(), "temperature": TEMPERATURE}

    def stored(self) -> dict[str, Any]:
        """The options that config.yaml and the checkpoints store."""
        return {name: value for name, value in super().stored().items() if name not in WITHOUT_LABELS_ONLY}
