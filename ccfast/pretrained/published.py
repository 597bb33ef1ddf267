"""What files of published weights wrap a network's state dict in, and other names for the same tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ccfast.pretrained import efficientnet_lite

StateDict = dict[str, Tensor]

#: Entries of a file that hold the state dict. Of DINO's two networks (TransReID-SSL), the teacher is the one to use.
WRAPPERS = ("state_dict", "model", "teacher", "student")

#: What stands before the names of a network that was trained as a part of another one: by DataParallel; MoCo's query
#: encoder, without its key encoder and queue (LUPerson); DINO's backbone, without its head (TransReID-SSL).
PREFIXES = ("module.", "encoder_q.", "backbone.")


@dataclass(frozen=True)
class Fitted:
    """A state dict under a network's names; ``mean`` and ``std`` of its inputs where they are not the network's own."""

    state: StateDict
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def unwrapped(content: Any) -> Any:
    """The innermost state dict of what a file holds, without the prefixes of :data:`PREFIXES`; else ``content``."""
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        return content
    for prefix in PREFIXES:
        content = _without(prefix, content)
    return content


def _without(prefix: str, state: dict[str, Any]) -> dict[str, Any]:
    """What comes after ``prefix`` in the names that have it; ``state`` itself where none has, or a ccfast encoder's."""
    inside = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    if prefix == "module.":  # some names may lack it
        return {name.removeprefix(prefix): value for name, value in state.items()}
    return inside if inside and "neck.weight" not in state else state


def fitted(state: StateDict, own: StateDict) -> Fitted:
    """``state`` under the names of ``own``, the state dict of the network that it is for."""
    if efficientnet_lite.is_efficientnet_lite_pytorch(state):
        renamed = efficientnet_lite.to_timm_names(state, own)
        return Fitted(renamed, efficientnet_lite.MEAN, efficientnet_lite.STD)
    return Fitted(state)


def grid_of(tokens: int) -> tuple[int, int] | None:
    """Rows and columns of ``tokens`` patches: a square, or two squares one above the other as for pedestrians."""
    for rows_per_column in (1, 2):
        columns = round((tokens / rows_per_column) ** 0.5)
        if rows_per_column * columns * columns == tokens:
            return rows_per_column * columns, columns
    return None
