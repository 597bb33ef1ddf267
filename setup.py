"""Builds ``ccfast._C`` against the torch of the environment that ccfast is installed into.

Environment variables:
    CCFAST_CUDA=auto|0|1    auto (default): CUDA kernels when torch has CUDA and a matching toolkit is found; 1: fail
                            loudly when they cannot be built; 0: CPU only.
    CUDA_HOME               the toolkit to use; found through nvcc on PATH otherwise.
    TORCH_CUDA_ARCH_LIST    the architectures to build for; the visible GPU's, or a list of common ones, otherwise.
    CCFAST_EMULATE=1        also build ccfast._C_emulated: the CUDA kernels compiled for the CPU over tests/emulation.
                            Set when ccfast is imported, it runs those in place of the CPU kernels.
    MAX_JOBS                compile jobs at a time.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent.resolve()
EMULATION = ROOT / "tests" / "emulation"
DEFAULT_ARCHITECTURES = "8.0;9.0+PTX"
FIND_TORCH = """
import importlib.util, pathlib
spec = importlib.util.find_spec("torch")
print(pathlib.Path(spec.origin).parent.parent if spec and spec.origin else "")
"""


def import_torch():
    """The environment's torch, also from inside pip's isolated build; ``None`` where there is none."""
    try:
        import torch
    except ImportError:
        # An isolated build hides the environment's packages; -I makes its interpreter look past that.
        found = subprocess.run([sys.executable, "-I", "-c", FIND_TORCH], capture_output=True, text=True, check=False)
        if found.returncode or not found.stdout.strip():
            return None
        sys.path.append(found.stdout.strip())
        import torch
    return torch


def toolkit_candidates():
    """Places where a CUDA toolkit may be, best first."""
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(variable):
            yield Path(os.environ[variable])
    nvcc = shutil.which("nvcc")
    if nvcc:
        yield Path(nvcc).resolve().parent.parent
        # nvcc on PATH may be a wrapper script: the compiler itself says where it lives.
        told = subprocess.run([nvcc, "--dryrun", "-x", "cu", os.devnull], capture_output=True, text=True, check=False)
        top = re.search(r"^#\$ TOP=(.+)$", told.stderr + told.stdout, re.MULTILINE)
        if top:
            yield Path(top.group(1).strip()).resolve()
    yield Path("/usr/local/cuda")


def find_toolkit() -> Path | None:
    """The root of the first complete CUDA toolkit: compiler and headers."""
    for root in toolkit_candidates():
        if (root / "bin" / "nvcc").exists() and (root / "include" / "cuda_runtime.h").exists():
            return root
    return None


def toolkit_version(root: Path) -> str:
    told = subprocess.run([root / "bin" / "nvcc", "--version"], capture_output=True, text=True, check=True)
    return re.search(r"release (\d+\.\d+)", told.stdout).group(1)


@dataclass
class CudaPlan:
    """Whether CUDA kernels are built, with what, and why."""

    toolkit: Path | None
    reason: str


def plan_cuda(torch) -> CudaPlan:
    """Decides by torch's CUDA and the toolkit at hand, not by a visible GPU."""
    switch = os.environ.get("CCFAST_CUDA", "auto")
    if switch not in ("auto", "0", "1"):
        raise SystemExit(f"CCFAST_CUDA: expected auto, 0 or 1, got {switch!r}")
    toolkit = find_toolkit()
    if switch == "0":
        return CudaPlan(None, "off by CCFAST_CUDA=0")
    if torch.version.cuda is None:
        plan = CudaPlan(None, "off: this torch has no CUDA")
    elif toolkit is None:
        plan = CudaPlan(None, f"off: no CUDA toolkit found (torch wants {torch.version.cuda}; set CUDA_HOME)")
    elif toolkit_version(toolkit).split(".")[0] != torch.version.cuda.split(".")[0]:
        plan = CudaPlan(None, f"off: toolkit {toolkit_version(toolkit)} does not fit torch's CUDA {torch.version.cuda}")
    else:
        plan = CudaPlan(toolkit, f"toolkit {toolkit_version(toolkit)} in {toolkit}")
    if switch == "1" and plan.toolkit is None:
        raise SystemExit(f"CCFAST_CUDA=1, but the CUDA kernels cannot be built: {plan.reason}")
    return plan


def choose_architectures(torch) -> str:
    """Honours TORCH_CUDA_ARCH_LIST; torch fails on an empty list where no GPU is visible."""
    if not os.environ.get("TORCH_CUDA_ARCH_LIST"):
        if torch.cuda.is_available():
            major, minor = torch.cuda.get_device_capability()
            os.environ["TORCH_CUDA_ARCH_LIST"] = f"{major}.{minor}"
        else:
            os.environ["TORCH_CUDA_ARCH_LIST"] = DEFAULT_ARCHITECTURES
    return os.environ["TORCH_CUDA_ARCH_LIST"]


def sources(*patterns: str) -> list[str]:
    """Files below csrc/ that match, relative to this one."""
    found = {path.relative_to(ROOT) for pattern in patterns for path in (ROOT / "csrc").rglob(pattern)}
    return sorted(map(str, found))


def cpu_sources() -> list[str]:
    return sorted(set(sources("*.cpp")) - set(cuda_glue()))


def cuda_glue() -> list[str]:
    return sources("*_op_cuda.cpp")


def openmp_flags() -> list[str]:
    # Compiled with OpenMP but not linked to it: the runtime that torch has loaded is the process's one thread pool.
    return ["-fopenmp"] if sys.platform.startswith("linux") else []


def extension(plan: CudaPlan):
    from torch.utils.cpp_extension import CppExtension, CUDAExtension

    cpp_flags = ["-O3", *openmp_flags()]
    if plan.toolkit is None:
        return CppExtension("ccfast._C", cpu_sources(), extra_compile_args={"cxx": cpp_flags})
    return CUDAExtension(
        "ccfast._C",
        cpu_sources() + cuda_glue() + sources("*.cu"),
        extra_compile_args={"cxx": cpp_flags, "nvcc": ["-O3"]},
    )


def emulated_extension():
    """The glue of the CUDA kernels, registered for CPU tensors, over the kernels compiled by the host compiler."""
    from torch.utils.cpp_extension import CppExtension

    folder = ROOT / "build" / "emulated"
    folder.mkdir(parents=True, exist_ok=True)
    kernels = []
    for kernel in sources("*.cu"):  # torch's build would hand a .cu file to nvcc
        wrapper = folder / f"{Path(kernel).stem}.cpp"
        wrapper.write_text(f'#include "{ROOT / kernel}"\n')
        kernels.append(str(wrapper.relative_to(ROOT)))
    cpu_only = sources("*_cpu.cpp", "*_op_cpu.cpp")
    shim = [str(path.relative_to(ROOT)) for path in EMULATION.glob("*.cpp") if not path.name.startswith("test_")]
    return CppExtension(
        "ccfast._C_emulated",
        sorted(set(sources("*.cpp")) - set(cpu_only)) + kernels + shim,
        include_dirs=[str(EMULATION)],
        define_macros=[("CCFAST_EMULATE", "1")],
        extra_compile_args={"cxx": ["-O2", *openmp_flags()]},
    )


def write_build_config(torch, plan: CudaPlan) -> None:
    """What the extension is built for; ``import ccfast`` compares it with the torch it finds."""
    facts = {
        "version": (ROOT / "VERSION").read_text().strip(),
        "torch": torch.__version__,
        "cuda": toolkit_version(plan.toolkit) if plan.toolkit else None,
        "arch_list": os.environ["TORCH_CUDA_ARCH_LIST"].replace(";", " ").split() if plan.toolkit else [],
    }
    lines = ["# Written by setup.py.", *(f"{name.upper()} = {value!r}" for name, value in facts.items())]
    (ROOT / "ccfast" / "_build_config.py").write_text("\n".join(lines) + "\n")


def dependencies(torch) -> list[str]:
    """The extension runs with the torch it was built against and no other, so that one is what pip must keep."""
    needs = ["numpy", "scipy", "scikit-learn", "tqdm", "pyyaml", "pillow", "jinja2", "matplotlib"]
    if torch is None:
        return [*needs, "torch>=2.6", "torchvision"]
    release = torch.__version__.split("+")[0]
    nightly = not re.fullmatch(r"[\d.]+", release)  # the index has no torchvision for one
    return [*needs, f"torch=={release}", *([] if nightly else ["torchvision"])]


EXTRAS = {
    "infomap": ["infomap>=2"],
    "timm": ["timm"],
    "onnx": ["onnx", "onnxscript", "onnxruntime"],
    "tensorboard": ["tensorboard"],
    "bench": ["pytest", "pytest-benchmark"],
    "test": ["pytest", "hypothesis", "pytest-benchmark", "infomap>=2"],
    "cuda12": ["cupy-cuda12x"],
    "cuda13": ["cupy-cuda13x"],
    "dev": ["ruff", "clang-format", "pre-commit", "cmake"],
}
IN_ALL = ("infomap", "timm", "onnx", "tensorboard", "bench", "test")
EXTRAS["all"] = sorted({need for extra in IN_ALL for need in EXTRAS[extra]})


def build(torch) -> dict:
    """The arguments of setup() that need torch."""
    plan = plan_cuda(torch)
    if plan.toolkit:
        os.environ["CUDA_HOME"] = str(plan.toolkit)
        architectures = choose_architectures(torch)
    from torch.utils.cpp_extension import BuildExtension

    class Build(BuildExtension):
        def build_extensions(self) -> None:
            print(f"ccfast: torch {torch.__version__}, Python {sys.version.split()[0]}")
            target = f", for {architectures}" if plan.toolkit else ""
            print("ccfast: CPU kernels: on")
            print(f"ccfast: CUDA kernels: {plan.reason}{target}", flush=True)
            super().build_extensions()
            write_build_config(torch, plan)

        def build_extension(self, ext) -> None:
            # One folder of objects an extension: the two compile the same files with different macros.
            shared, self.build_temp = self.build_temp, os.path.join(self.build_temp, ext.name)
            super().build_extension(ext)
            self.build_temp = shared

    emulated = [emulated_extension()] if os.environ.get("CCFAST_EMULATE") == "1" else []
    return {"ext_modules": [extension(plan), *emulated], "cmdclass": {"build_ext": Build}}


torch = import_torch()
setup(
    version=(ROOT / "VERSION").read_text().strip(),
    install_requires=dependencies(torch),
    extras_require=EXTRAS,
    # Without a torch anywhere, pip brings one for the build; the same release is then what the package depends on.
    setup_requires=[] if torch else ["torch>=2.6"],
    **(build(torch) if torch else {}),
)
