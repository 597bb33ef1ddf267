"""Finds the state dict in files of published weights, and renames its tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ccfast.pretrained import efficientnet_lite

StateDict = dict[str, Tensor]

#: Entries of a file that contain the state dict. Of DINO's two networks (TransReID-SSL), the teacher is used.
WRAPPERS = ("state_dict", "model", "teacher", "student")

#: Prefixes of the names of a network that was trained as a part of another one: by DataParallel; MoCo's query encoder,
#: without its key encoder and queue (LUPerson); DINO's backbone, without its head (TransReID-SSL).
PREFIXES = ("module.", "encoder_q.", "backbone.")


@dataclass(frozen=True)
class Fitted:
    """A state dict with a network's names; ``mean`` and ``std`` of its inputs, if they differ from the network's."""

    state: StateDict
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def unwrapped(content: Any) -> Any:
    """The innermost state dict in a file's content, without the prefixes of :data:`PREFIXES`; else ``content``."""
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        return content
    for prefix in PREFIXES:
        content = _without(prefix, content)
    return content


def _without(prefix: str, state: dict[str, Any]) -> dict[str, Any]:
    """The entries with ``prefix``, without it; ``state`` itself if there are none, or if it is a ccfast encoder's."""
    inside = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    if prefix == "module.":  # some names may lack it
        return {name.removeprefix(prefix): value for name, value in state.items()}
    return inside if inside and "neck.weight" not in state else state


def fitted(state: StateDict, own: StateDict) -> Fitted:
    """``state`` with the names of ``own``, the state dict of the network that loads it."""
    if efficientnet_lite.is_efficientnet_lite_pytorch(state):
        renamed = efficientnet_lite.to_timm_names(state, own)
        return Fitted(renamed, efficientnet_lite.MEAN, efficientnet_lite.STD)
    return Fitted(state)


def grid_of(tokens: int) -> tuple[int, int] | None:
    """Rows and columns of ``tokens`` patches: a square, or for pedestrians two squares, one above the other."""
    for rows_per_column in (1, 2):
        columns = round((tokens / rows_per_column) ** 0.5)
        if rows_per_column * columns * columns == tokens:
            return rows_per_column * columns, columns
    return None
