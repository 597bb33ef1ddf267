"""setuptools' build backend, which asks for a torch only where one is compiled against and there is none."""

from __future__ import annotations

import sys

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403

from build_support import torch_at_hand

NO_TORCH = """
ccfast is compiled against the torch of the environment that it is installed into, and this build runs in an
environment of its own, which has none. Install torch first, and build beside it:

    pip install torch torchvision setuptools wheel ninja
    pip install --no-build-isolation .          # uv: uv pip install --no-build-isolation .
    python -m build --wheel --no-isolation      # for a wheel
"""


def _torch_for_build() -> list[str]:
    """Nothing where torch is installed. pip's isolated build gets one where the environment has none either."""
    if torch_at_hand.folder() is not None:
        return []
    if any("pip-build-env-" in entry for entry in sys.path):
        return [torch_at_hand.OLDEST]
    raise SystemExit(NO_TORCH)


def get_requires_for_build_wheel(config_settings=None) -> list[str]:
    """What the build of a wheel needs."""
    return [*build_meta.get_requires_for_build_wheel(config_settings), *_torch_for_build()]


def get_requires_for_build_editable(config_settings=None) -> list[str]:
    """What an editable installation needs."""
    return [*build_meta.get_requires_for_build_editable(config_settings), *_torch_for_build()]
