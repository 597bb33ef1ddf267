"""ccfast: Cluster Contrast at the speed of the hardware."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ccfast._program import runs_as_program

if TYPE_CHECKING or not runs_as_program():
    from ccfast._public import *  # noqa: F403
    from ccfast._public import __all__ as __all__
    from ccfast._public import __version__ as __version__
else:

    def __getattr__(name: str) -> object:
        """A public name, imported on its first use, so that ``--help`` needs no torch."""
        if name.startswith("_") and name != "__version__":
            raise AttributeError(f"module 'ccfast' has no attribute {name!r}")
        return getattr(importlib.import_module("ccfast._public"), name)
