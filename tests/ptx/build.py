"""Compiles the executor and the kernels that it runs; the results stay under ``build/ptx``."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
CSRC = ROOT / "csrc"
CORE = Path(__file__).parent / "core"
CACHE = ROOT / "build" / "ptx"
FLAGS = ["-std=c++17", "-O2", "-ffp-contract=off", "-fPIC", "-shared", "-Wall", "-Wextra"]
NVCC_FLAGS = ["-std=c++17", "-O3", "-arch=compute_75", "-lineinfo", "-ptx"]


def missing() -> str:
    """Why the executor cannot run here; empty if it can."""
    for program in ("nvcc", "nm", os.environ.get("CXX", "c++")):
        if shutil.which(program) is None:
            return f"no {program}"
    return ""


def _key(command: list[str], files: Iterable[Path]) -> str:
    digest = hashlib.sha256(repr(command).encode())
    for file in sorted(files):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _version(program: str) -> str:
    return subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout


def _compile(command: list[str], made_of: Iterable[Path], name: str, suffix: str) -> Path:
    """The output of ``command -o PATH``, built again if the command, the compiler or a file has changed."""
    result = CACHE / f"{name}-{_key([*command, _version(command[0])], made_of)}{suffix}"
    if result.exists():
        return result
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f"{name}.lock", "w") as lock:  # other test processes need it too
        fcntl.flock(lock, fcntl.LOCK_EX)
        if result.exists():
            return result
        unfinished = result.with_name(f"unfinished-{result.name}")
        done = subprocess.run([*command, "-o", str(unfinished)], cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
        unfinished.rename(result)
    return result


def core() -> Path:
    """The executor, as a shared library."""
    emulation = ROOT / "tests" / "emulation"
    sources = sorted(path for path in CORE.glob("*.cpp") if path.name != "allocations.cpp")
    command = [os.environ.get("CXX", "c++"), *FLAGS, f"-I{emulation}", *map(str, sources)]
    return _compile(command, [*sources, *CORE.glob("*.h"), emulation / "half.h"], "core", ".so")


def allocations() -> Path:
    """The library that reports torch's allocations to the executor."""
    source = CORE / "allocations.cpp"
    include, library = (Path(torch.__file__).parent / name for name in ("include", "lib"))
    link = [f"-L{library}", "-lc10", f"-Wl,-rpath,{library}"]
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"
    command = [os.environ.get("CXX", "c++"), *FLAGS, "-w", abi, f"-I{include}", str(source), *link]
    return _compile(command, [source, Path(torch.__file__).parent / "version.py"], "allocations", ".so")


def ptx(source: Path) -> Path:
    """nvcc's PTX of a .cu file."""
    headers = [path for pattern in ("*.h", "*.cuh") for path in CSRC.rglob(pattern)]
    command = ["nvcc", *NVCC_FLAGS, f"-I{CSRC}", str(source)]
    return _compile(command, [source, *headers], source.stem, ".ptx")


def kernels() -> list[Path]:
    """The PTX of every kernel file of the project."""
    return [ptx(path) for path in sorted(CSRC.rglob("*.cu"))]
