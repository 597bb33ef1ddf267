"""Loads the compiled extension, after checking that it was built for the installed torch."""

from __future__ import annotations

import importlib
import os
from typing import Any

import torch

REBUILD = "pip install --no-build-isolation -e ."


def _load() -> dict[str, Any]:
    """The build configuration of the extension; raises one ImportError with the command to run."""
    try:
        config = importlib.import_module("ccfast._build_config")
    except ImportError as error:
        raise ImportError(f"ccfast's extension has not been built; in ccfast's folder run: {REBUILD}") from error
    if torch.__version__ != config.TORCH:
        raise ImportError(
            f"ccfast was built for torch {config.TORCH}, but torch {torch.__version__} is installed; "
            f"in ccfast's folder run: {REBUILD}"
        )
    emulate = os.environ.get("CCFAST_EMULATE") == "1"
    try:
        extension = importlib.import_module("ccfast._C_emulated" if emulate else "ccfast._C")
    except ImportError as error:
        command = f"CCFAST_EMULATE=1 {REBUILD}" if emulate else REBUILD
        raise ImportError(f"ccfast's extension does not load ({error}); in ccfast's folder run: {command}") from error
    return {
        "version": config.VERSION,
        "torch": config.TORCH,
        "cuda": config.CUDA,
        "arch_list": list(config.ARCH_LIST),
        **extension.build_info(),
    }


_BUILD_INFO = _load()


def build_info() -> dict[str, Any]:
    """What the compiled extension was built with.

    Returns:
        ``version`` of ccfast, ``torch`` it was built for, ``cuda`` (toolkit version, or None for a CPU-only build),
        ``arch_list`` (CUDA architectures, empty for a CPU-only build), ``compiler``, ``cxx_standard``, and whether the
        CUDA kernels are ``emulated`` on the CPU.

    Examples:
        >>> import ccfast
        >>> ccfast.build_info()["version"] == ccfast.__version__
        True
    """
    return {**_BUILD_INFO, "arch_list": list(_BUILD_INFO["arch_list"])}
