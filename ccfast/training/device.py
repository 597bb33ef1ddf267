"""The device of a run."""

from __future__ import annotations

import re
import resource
from pathlib import Path

import torch

import ccfast
from ccfast._errors import InputError


def choose_device(name: str | None) -> torch.device:
    """The device ``name``; without a name, CUDA if torch, ccfast and the machine all support it, or else the CPU.

    A GPU with a number becomes the current one; otherwise pinned memory would use memory of the first GPU.
    """
    built = ccfast.build_info().get("cuda") is not None
    if name is None:
        name = "cuda" if built and torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"--device: expected cpu or cuda, got {name!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"--device: expected cpu or cuda, got {name!r}")
    if device.type == "cuda":
        _check_cuda(device, built)
        if device.index is not None:
            torch.cuda.set_device(device)
    return device


def peak_memory_mb(device: torch.device) -> int:
    """The peak memory so far, in MiB: torch's memory on the GPU, or the RAM of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) >> 20
    return _peak_of_process() >> 10


def _peak_of_process() -> int:
    """The peak in KiB. Linux's ``ru_maxrss`` would include the memory of the process that started this one."""
    try:
        found = re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _check_cuda(device: torch.device, built: bool) -> None:
    if not torch.cuda.is_available():
        raise InputError(f"--device {device}: torch {torch.__version__} finds no CUDA device; use --device cpu")
    if not built:
        raise InputError(f"--device {device}: this ccfast was built without CUDA; build with CCFAST_CUDA=1")
    if device.index is not None and device.index >= torch.cuda.device_count():
        raise InputError(f"--device {device}: there are {torch.cuda.device_count()} CUDA device(s)")
