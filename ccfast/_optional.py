"""Packages that only some commands need: imported on use, with a clear error if they are missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from ccfast._errors import InputError

#: The extra of ccfast that installs a package, with everything that is used together with it.
EXTRAS = {
    "onnx": "onnx", "onnxscript": "onnx", "onnxruntime": "onnx", "tensorboard": "tensorboard", "wandb": "wandb",
    "mlflow": "mlflow", "safetensors": "safetensors",
}  # fmt: skip


def how_to_install(package: str) -> str:
    """The command that installs ``package`` and everything that is used together with it."""
    return f"pip install 'ccfast[{EXTRAS[package]}]'" if package in EXTRAS else f"pip install {package}"


def import_optional(module: str, what: str, package: str | None = None) -> ModuleType:
    """Import ``module``, or raise an InputError which says that ``what`` needs ``package`` and why it is unavailable.

    ``package``: by default the first part of the module's name.
    """
    package = package or module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"{what} needs {package}, which is not installed: {how_to_install(package)}") from error
    except RuntimeError as error:  # torchvision's operators work with one build of torch only
        raise InputError(f"{what} needs {package}, which does not load beside this torch: {error}") from error
