"""The torch that ccfast is built against: the one of the environment that it is installed into."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType

OLDEST = "torch>=2.6"
FIND_TORCH = """
import importlib.util, pathlib
spec = importlib.util.find_spec("torch")
print(pathlib.Path(spec.origin).parent.parent if spec and spec.origin else "")
"""


@cache
def folder() -> Path | None:
    """The folder of the package torch, also from inside pip's isolated build; None without torch."""
    spec = importlib.util.find_spec("torch")
    if spec and spec.origin:
        return Path(spec.origin).parent.parent
    # An isolated build of pip hides the environment's packages; with -I its interpreter finds them.
    found = subprocess.run([sys.executable, "-I", "-c", FIND_TORCH], capture_output=True, text=True, check=False)
    return Path(found.stdout.strip()) if found.returncode == 0 and found.stdout.strip() else None


def _installed_folder() -> Path:
    path = folder()
    if path is None:
        raise SystemExit("ccfast needs an installed torch to build against, got none: pip install torch torchvision")
    return path


def load() -> ModuleType:
    """The module torch."""
    path = _installed_folder()
    if str(path) not in sys.path:
        sys.path.append(str(path))
    import torch

    return torch


def installed_version() -> str:
    """The version in pip: with a local part, such as 2.13.0+cpu, only if the index has one."""
    for found in metadata.distributions(name="torch", path=[str(_installed_folder())]):
        return found.version
    return full_version()  # torch was built in place


def full_version() -> str:
    """The version in torch, always with its backend, such as 2.11.0+cu130, without importing torch."""
    text = (_installed_folder() / "torch" / "version.py").read_text()
    return re.search(r"""__version__ = ['"](.+?)['"]""", text).group(1)


def requirements() -> list[str]:
    """The requirements of ccfast: exactly the build of torch that it is compiled against, and a torchvision."""
    if folder() is None:
        return [OLDEST, "torchvision"]
    version = installed_version()
    # "==2.11.0" would also accept 2.11.0+cpu, another build; "===" compares the whole version.
    pin = f"torch=={version}" if "+" in version else f"torch==={version}"
    released = re.fullmatch(r"[\d.]+(\+\w+)?", version)  # the index has no torchvision for a nightly build
    return [pin, *(["torchvision"] if released else [])]
