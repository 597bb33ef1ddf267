"""Runs kernels on the executor: those of the emulated extension, launched by ccfast's host code, or a given kernel."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from . import build

_FORWARD = -1


@functools.cache
def core() -> ctypes.CDLL:
    """The executor, which sees all allocations of torch from now on."""
    library = ctypes.CDLL(str(build.core()))
    library.ptx_load.restype = ctypes.c_int
    for name in ("ptx_message", "ptx_kernels", "ptx_run", "ptx_counts"):
        getattr(library, name).restype = ctypes.c_char_p
    library.ptx_run.argtypes = [
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_int64,
        ctypes.c_int,
        ctypes.c_size_t,
        ctypes.POINTER(ctypes.c_void_p),
    ]
    library.ptx_bind.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p]
    library.ptx_configure.argtypes = [ctypes.c_int64, ctypes.c_int, ctypes.c_int]
    watch = ctypes.CDLL(str(build.allocations()))
    watch.ptx_watch_torch(library.ptx_add_allocation, library.ptx_remove_allocation)
    return library


def configure(seed: int | None = None, resident_blocks: int = 16, races: bool = True) -> None:
    """How the next launches run.

    Args:
        seed: Seed for the order of blocks, warps and groups of lanes; None: one block after another.
        resident_blocks: Number of concurrent blocks, with a seed.
        races: Whether to detect races.
    """
    core().ptx_configure(_FORWARD if seed is None else seed, resident_blocks, races)


def load(path: Path) -> int:
    """The number of a .ptx file, for :func:`run`."""
    module = core().ptx_load(str(path).encode())
    if module < 0:
        raise RuntimeError(core().ptx_message().decode())
    return module


load_once = functools.cache(load)


@functools.cache
def _demangled(names: tuple[str, ...]) -> dict[str, str]:
    done = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    return {name: plain for name, plain in zip(done.stdout.splitlines(), names, strict=True)}


def plain_name(mangled: str) -> str:
    """A kernel's name in C++."""
    return next(iter(_demangled((mangled,))))


def entries(module: int) -> dict[str, str]:
    """The kernels of a module, by their names in C++."""
    return _demangled(tuple(core().ptx_kernels(module).decode().split()))


def run(module: int, kernel: str, grid: int, block: int, shared_bytes: int, *arguments: Any) -> None:
    """Launches a kernel of a module.

    Args:
        kernel: Its name, with template arguments if it has any: ``flatten_kernel``, ``select_kernel<float>``.
        arguments: Tensors (their address) and ctypes values.
    """
    (name,) = [
        mangled for plain, mangled in entries(module).items() if re.search(rf"\b{re.escape(kernel)}(\(|$)", plain)
    ]
    values = [ctypes.c_void_p(value.data_ptr()) if isinstance(value, Tensor) else value for value in arguments]
    addresses = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
    error = core().ptx_run(module, name.encode(), grid, block, shared_bytes, addresses)
    if error:
        raise RuntimeError(error.decode())


def _host_kernels(extension: Path) -> Iterator[tuple[str, int]]:
    """C++ names of the extension's functions and their places in the file."""
    symbols = subprocess.run(["nm", "-C", "--defined-only", str(extension)], capture_output=True, text=True, check=True)
    for line in symbols.stdout.splitlines():
        address, kind, name = line.split(" ", 2)
        if kind in "tTwW":
            yield name, int(address, 16)


@functools.cache
def _bind(extension: Path) -> ctypes.CDLL:
    """Registers the kernel of each of the extension's functions."""
    library = ctypes.CDLL(str(extension))
    places = dict(_host_kernels(extension))
    setter = library.ccfast_emulation_set_launcher
    base = ctypes.cast(setter, ctypes.c_void_p).value - places["ccfast_emulation_set_launcher"]
    for path in build.kernels():
        module = load(path)
        for name, mangled in entries(module).items():
            if name not in places:
                raise RuntimeError(f"{extension.name} lacks {name}: build it anew")
            core().ptx_bind(base + places[name], module, mangled.encode())
    return library


@contextlib.contextmanager
def installed(extension: Path) -> Iterator[None]:
    """Within this context, launches of the emulated extension run nvcc's code."""
    library = _bind(extension)
    library.ccfast_emulation_set_launcher(core().ptx_launch)
    try:
        yield
    finally:
        library.ccfast_emulation_set_launcher(None)


def emulated_extension() -> Path | None:
    """The emulated extension of the installed ccfast, or None if it was not built."""
    spec = importlib.util.find_spec("ccfast._C_emulated")
    return Path(spec.origin) if spec and spec.origin else None


def counts() -> str:
    """Counts since :func:`clear_counts`; core/api.cpp describes the format."""
    return core().ptx_counts().decode()


def clear_counts() -> None:
    """Resets the counts."""
    core().ptx_clear_counts()
