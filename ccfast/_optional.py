"""Packages that only some commands need: imported when they are, and missed in words."""

from __future__ import annotations

import importlib
from types import ModuleType

from ccfast._errors import InputError


def import_optional(module: str, what: str) -> ModuleType:
    """``module``, or an InputError that says that ``what`` needs its package and why that cannot be had."""
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"{what} needs {package}, which is not installed: pip install {package}") from error
    except RuntimeError as error:  # torchvision's operators belong to one build of torch
        raise InputError(f"{what} needs {package}, which does not load beside this torch: {error}") from error
