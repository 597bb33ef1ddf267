"""setuptools' build backend, which requires torch only if it is needed for compiling and not installed."""

from __future__ import annotations

import sys

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403

from build_support import torch_at_hand

NO_TORCH = """
ccfast is compiled against the torch of the environment that it is installed into, but this build runs in a separate
environment without torch. First install torch, and then build without isolation:

    pip install torch torchvision setuptools wheel ninja
    pip install --no-build-isolation .          # uv: uv pip install --no-build-isolation .
    python -m build --wheel --no-isolation      # for a wheel
"""


def _torch_for_build() -> list[str]:
    """Nothing if torch is installed. Otherwise pip's isolated build installs torch."""
    if torch_at_hand.folder() is not None:
        return []
    if any("pip-build-env-" in entry for entry in sys.path):
        return [torch_at_hand.OLDEST]
    raise SystemExit(NO_TORCH)


def get_requires_for_build_wheel(config_settings=None) -> list[str]:
    """The requirements for building a wheel."""
    return [*build_meta.get_requires_for_build_wheel(config_settings), *_torch_for_build()]


def get_requires_for_build_editable(config_settings=None) -> list[str]:
    """The requirements for an editable installation."""
    return [*build_meta.get_requires_for_build_editable(config_settings), *_torch_for_build()]
