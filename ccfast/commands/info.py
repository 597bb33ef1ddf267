"""``ccfast info``."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HELP = "print how ccfast was built and what is installed"

#: The packages that ccfast needs besides torch, and the optional packages of some commands.
NEEDED = ("numpy", "scipy", "scikit-learn", "matplotlib", "pillow", "jinja2", "pyyaml", "tqdm", "torchvision")
OPTIONAL = (
    "timm", "safetensors", "umap-learn", "infomap", "tensorboard", "wandb", "mlflow-skinny", "onnx", "onnxscript",
    "onnxruntime", "cupy-cuda12x", "cupy-cuda13x",
)  # fmt: skip


def add_options(parser: argparse.ArgumentParser) -> None:
    """No options."""
    parser.description = "Print what a bug report needs: the build of ccfast, this machine, and the packages it uses."


def run(options: dict[str, Any]) -> None:
    """Print what a bug report needs."""
    for name, value in facts():
        print(f"{name}: {value}")


def facts() -> Iterator[tuple[str, object]]:
    """(name, value) of each line that :func:`run` prints."""
    import torch

    import ccfast
    from ccfast._commit import commit

    built = ccfast.build_info()
    yield "ccfast", built.pop("version")
    yield "commit", commit()
    for name, value in built.items():
        yield name, " ".join(value) or "none" if isinstance(value, list) else "none" if value is None else value
    yield "python", f"{platform.python_version()} ({platform.python_implementation()})"
    yield "system", f"{_system()} on {platform.machine()}, {' '.join(platform.libc_ver()) or 'C library unknown'}"
    yield "processor", _processor()
    yield "threads", f"{torch.get_num_threads()}{''.join(f', {text}' for text in _set_by_environment())}"
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    yield "cuda devices", ", ".join(gpus) or "none"
    for package in (*NEEDED, *OPTIONAL):
        yield package, _version(package)


def _system() -> str:
    kernel = f"{platform.system()} {platform.release()}"
    try:
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {kernel}"
    except (OSError, KeyError):  # not on this system
        return kernel


def _processor() -> str:
    """The model, the number of processors, and how many of them this process may use."""
    from ccfast._processors import allowed_processors

    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not on this system
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    model = next(names, platform.processor() or "unknown model")
    return f"{model}, {os.cpu_count()} processors, {allowed_processors()} for this process"


def _set_by_environment() -> list[str]:
    """The variables for the number of threads and how they wait, set by ccfast or by the user."""
    from ccfast._program import WAITING

    return [f"{name}={os.environ[name]}" for name in ("OMP_NUM_THREADS", *WAITING) if name in os.environ]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
