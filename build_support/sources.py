"""The sources of the extensions, and the few units in which they are compiled.

Torch's headers take most of the compile time of a file that includes them. So the glue, which needs them, is compiled
as one unit per backend that includes its files. Kernels do not need them; each is a separate unit.
"""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parent.parent.resolve()
CSRC = ROOT / "csrc"
EMULATION = ROOT / "tests" / "emulation"


def _paths(*patterns: str) -> set[Path]:
    return {path for pattern in patterns for path in CSRC.rglob(pattern)}


def _names(paths: set[Path]) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in paths)


def headers() -> list[str]:
    """All headers, relative to the root."""
    return _names(_paths("*.h", "*.cuh"))


def cuda_kernels() -> set[Path]:
    """Plain CUDA C++."""
    return _paths("*.cu")


def cuda_glue() -> set[Path]:
    """The glue that calls the CUDA kernels with torch's tensors."""
    return _paths("*_op_cuda.cpp")


def cpu_only() -> set[Path]:
    """The CPU kernels, which the emulated extension replaces by the CUDA kernels."""
    return _paths("*_cpu.cpp")


def needs_torch(path: Path) -> bool:
    """Whether a source includes torch's headers, directly or through ours."""
    text = path.read_text()
    if any(f"#include <{name}" in text for name in ("ATen/", "c10/", "torch/")):
        return True
    included = (line.split('"')[1] for line in text.splitlines() if line.startswith('#include "'))
    return any(needs_torch(path.parent / name) for name in included if (path.parent / name).exists())


def _write_if_new(path: Path, text: str) -> Path:
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
    return path


def _unit(folder: Path, name: str, members: list[Path] | set[Path]) -> Path:
    lines = [f'#include "{path}"' for path in sorted(members)]
    return _write_if_new(folder / f"{name}.cpp", "// Written by setup.py.\n" + "\n".join(lines) + "\n")


def units(folder: Path, sources: list[str], *, emulate: bool = False) -> list[str]:
    """Write the units for ``sources`` to ``folder``; returns all files to compile, the slowest first."""
    paths = {ROOT / source for source in sources}
    folder.mkdir(parents=True, exist_ok=True)
    kernels = {path for path in paths if path.suffix == ".cu"}
    glue = {path for path in paths - kernels if needs_torch(path)}
    result = [_unit(folder, "glue", glue - cuda_glue())]
    if glue & cuda_glue():
        result.append(_unit(folder, "glue_cuda", glue & cuda_glue()))
    if emulate:  # torch's build would hand a .cu file to nvcc
        result += [_unit(folder, path.stem, {path}) for path in sorted(kernels)]
    else:
        result += sorted(kernels)
    result += sorted(paths - kernels - glue)
    return [os.path.relpath(path, ROOT) for path in result]


def cpu_sources() -> list[str]:
    """The sources of ccfast._C without CUDA."""
    return _names(_paths("*.cpp") - cuda_glue())


def cuda_sources() -> list[str]:
    """The additional sources of ccfast._C with CUDA."""
    return _names(cuda_glue() | cuda_kernels())


def emulated_sources() -> list[str]:
    """The sources of ccfast._C_emulated: the CUDA glue, registered for CPU tensors, the kernels and the emulator."""
    emulator = {path for path in EMULATION.glob("*.cpp") if not path.name.startswith("test_")}
    return _names((_paths("*.cpp") - cpu_only()) | cuda_kernels() | emulator)
