"""Loads weights from a file into a backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ccfast._errors import InputError, is_out_of_memory
from ccfast._optional import import_optional
from ccfast.pretrained import unwrapped

StateDict = dict[str, Tensor]

#: Names of the classifiers of pretrained networks, which an encoder does not use.
CLASSIFIERS = ("fc.", "classifier.", "head.", "_fc.")

#: The ending of files that safetensors reads.
SAFETENSORS = ".safetensors"

#: Number of tensors of each kind that a message names.
NAMED = 3

#: The number of batches that a BatchNorm layer has seen.
COUNTER = ".num_batches_tracked"


def read_state_dict(path: Path) -> StateDict:
    """The state dict in ``path``, a file of torch or of safetensors, without wrappers."""
    content = unwrapped(_read(path))
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise InputError(f"--weights: {path} holds no state dict (names to tensors)")
    return content


def _read(path: Path) -> Any:
    try:
        if path.suffix == SAFETENSORS:
            return import_optional("safetensors.torch", f"--weights: {path}").load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # damaged files can raise any error
        if is_out_of_memory(error):
            raise
        raise InputError(f"--weights: {path}: not PyTorch weights, or truncated ({type(error).__name__})") from error


def not_downloaded(what: str, error: Exception) -> InputError:
    """The error if pretrained weights cannot be downloaded; ``what`` names the option and the weights."""
    return InputError(
        f"{what} could not be downloaded ({error}); "
        "pass a file with --weights FILE, or --weights none to start from random weights"
    )


def load_weights(module: nn.Module, state: StateDict, arch: str) -> None:
    """Load ``state`` into ``module``.

    Only classifiers may be left over, and only counters may be missing, which BatchNorm in old files does not have.
    """
    own = module.state_dict()
    state = {name: value for name, value in state.items() if name in own or not name.startswith(CLASSIFIERS)}
    found = misfits(own, {**{name: value for name, value in own.items() if name.endswith(COUNTER)}, **state})
    for name in own.keys() & state.keys() if not found else ():
        if reason := unusable(state[name]):
            found = f"{name} {reason}"
    if found:
        raise InputError(f"--weights: the file does not fit --arch {arch}: {found}")
    module.load_state_dict(state, strict=False)


def unusable(value: Any) -> str | None:
    """Why ``value`` cannot be a parameter or a buffer, as the end of a sentence; None if it can."""
    if not isinstance(value, Tensor):
        return f"is a {type(value).__name__}, not a tensor"
    if value.layout is not torch.strided or value.is_meta or value.is_quantized or value.is_complex():
        return f"is a tensor of layout {value.layout}, {value.dtype} on {value.device}, not a dense real one"
    if value.is_floating_point() and not value.isfinite().all():
        return "has values that are not finite"
    return None


def misfits(own: StateDict, state: StateDict) -> str:
    """A text about the entries of ``state`` that do not fit a module with the state ``own``; empty if all fit."""
    problems = {
        "missing": sorted(own.keys() - state.keys()),
        "unknown": sorted(state.keys() - own.keys()),
        "of another shape": [
            f"{name} {list(state[name].shape)}, here {list(value.shape)}"
            for name, value in own.items()
            if name in state and state[name].shape != value.shape
        ],
    }
    return "; ".join(
        f"{len(names)} {what} ({', '.join(names[:NAMED])}{', ...' if len(names) > NAMED else ''})"
        for what, names in problems.items()
        if names
    )
