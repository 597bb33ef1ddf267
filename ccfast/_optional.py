"""Packages that only some commands need: imported when they are, and missed in words."""

from __future__ import annotations

import importlib
from types import ModuleType

from ccfast._errors import InputError

#: The extra of ccfast that brings a package, with all that is used beside it.
EXTRAS = {
    "onnx": "onnx", "onnxscript": "onnx", "onnxruntime": "onnx", "tensorboard": "tensorboard", "wandb": "wandb",
    "mlflow": "mlflow", "safetensors": "safetensors",
}  # fmt: skip


def how_to_install(package: str) -> str:
    """The command that installs ``package`` and what it is used with."""
    return f"pip install 'ccfast[{EXTRAS[package]}]'" if package in EXTRAS else f"pip install {package}"


def import_optional(module: str, what: str, package: str | None = None) -> ModuleType:
    """``module``, or an InputError that says that ``what`` needs ``package`` and why that cannot be had.

    ``package``: by default the one that the module's name begins with.
    """
    package = package or module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"{what} needs {package}, which is not installed: {how_to_install(package)}") from error
    except RuntimeError as error:  # torchvision's operators belong to one build of torch
        raise InputError(f"{what} needs {package}, which does not load beside this torch: {error}") from error
