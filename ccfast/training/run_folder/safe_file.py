"""best.safetensors: an encoder in a file of only tensors and text, for programs without ccfast."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from ccfast._errors import InputError, is_out_of_memory
from ccfast._files import write_whole
from ccfast._optional import import_optional

SUFFIX = ".safetensors"

#: The entries of a checkpoint that are JSON text in the file's metadata.
AS_TEXT = ("config", "epoch", "best")


def can_be_written() -> bool:
    """Whether the package safetensors is installed."""
    return importlib.util.find_spec("safetensors") is not None


def write_safetensors(content: dict[str, Any], path: Path) -> None:
    """Write the content of best.pt: the encoder's tensors, and config, epoch and best as JSON in the metadata."""
    from safetensors.torch import save

    metadata = {"format": "pt", **{name: json.dumps(content[name]) for name in AS_TEXT}}
    tensors = {name: value.detach().cpu().contiguous() for name, value in content["model"].items()}
    write_whole(path, save(tensors, metadata))


def read_safetensors(path: Path) -> dict[str, Any]:
    """The content of such a file, in the format of best.pt.

    Raises:
        InputError: the package is not installed, or the file is not from ccfast.
    """
    safetensors = import_optional("safetensors", str(path))
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            model = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it cannot be iterated over)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such checkpoint") from error
    except Exception as error:  # safetensors can raise any error for damaged files
        if is_out_of_memory(error):
            raise
        raise InputError(f"{path}: not a safetensors file, or a truncated one ({type(error).__name__})") from error
    missing = [name for name in AS_TEXT if name not in metadata]
    if missing:
        raise InputError(
            f"{path}: not a checkpoint of ccfast train: its metadata has no {', '.join(missing)}; --weights FILE takes "
            "the weights of a backbone"
        )
    try:
        return {**{name: json.loads(metadata[name]) for name in AS_TEXT}, "model": model}
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: its metadata is not JSON") from error
