"""``ccfast info``."""

from __future__ import annotations

import argparse
import importlib.metadata
from typing import Any

HELP = "how ccfast was built, and what it finds here"

OPTIONAL_PACKAGES = ("torchvision", "timm", "infomap", "matplotlib", "tensorboard", "onnx")


def add_options(parser: argparse.ArgumentParser) -> None:
    """No options."""


def run(options: dict[str, Any]) -> None:
    """Print what a bug report needs."""
    import torch

    import ccfast

    for name, value in ccfast.build_info().items():
        print(f"{name}: {value}")
    print(f"torch: {torch.__version__}, {torch.get_num_threads()} threads")
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    print(f"cuda devices: {', '.join(gpus) or 'none'}")
    for package in OPTIONAL_PACKAGES:
        print(f"{package}: {_version(package)}")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
