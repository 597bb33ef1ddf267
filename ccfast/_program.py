"""Whether this process is the command line of ccfast, and the settings that it makes before torch is imported."""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping
from pathlib import Path

from ccfast._processors import allowed_processors, usable_processors

#: The variables that set how OpenMP's threads wait for work: the standard's, GCC's and LLVM's.
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def runs_as_program() -> bool:
    """Whether this process was started as ``ccfast`` or ``python -m ccfast``."""
    arguments = getattr(sys, "argv", None) or [""]
    if arguments[0] == "-m":  # Python is still searching for the module to run
        return sys.orig_argv[-len(arguments)] in ("ccfast", "-mccfast")
    return Path(arguments[0]).name == "ccfast"


def choose_threads(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let OpenMP's threads sleep while they wait, and limit their number to what the process may run at the same time.

    OpenMP reads its variables once, when torch loads it; later changes have no effect. Variables that the user has set
    are not changed.

    By default threads spin while they wait for the next parallel loop. If other programs run on the machine, spinning
    threads may take the processor from the thread that they wait for.
    """
    if "torch" in sys.modules:
        return
    if not any(name in environment for name in WAITING):
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
    threads = max(1, allowed_processors() // _positive(environment.get("LOCAL_WORLD_SIZE")))
    if "OMP_NUM_THREADS" not in environment and threads < usable_processors():  # else torch's own choice is right
        environment["OMP_NUM_THREADS"] = str(threads)


def _positive(text: str | None) -> int:
    """A number of processes from the environment, or 1."""
    return max(1, int(text)) if text is not None and text.isdecimal() else 1
