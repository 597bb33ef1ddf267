"""Builds ``ccfast._C`` against the torch of the environment that ccfast is installed into.

Environment variables:
    CCFAST_CUDA=auto|0|1    auto (default): CUDA kernels if torch has CUDA, a matching toolkit is found, and a GPU is
                            visible or TORCH_CUDA_ARCH_LIST is set; 1: fail if they cannot be built; 0: CPU only.
    CUDA_HOME               the toolkit; default: found through nvcc on PATH.
    TORCH_CUDA_ARCH_LIST    the architectures to build for; default: those of the visible GPUs, or common ones.
    CCFAST_EMULATE=1        also build ccfast._C_emulated: the CUDA kernels compiled for the CPU over tests/emulation.
                            If set when ccfast is imported, these run instead of the CPU kernels.
    CCFAST_NAME_TORCH=1     put the torch into the version, as in 0.1.0+torch2.13.0.cpu: for wheels for several torches.
    MAX_JOBS                parallel compile jobs; default: one per core, with 2 GB of memory for each.
"""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
sys.path.insert(0, str(ROOT))

from build_support import outputs, sources, torch_at_hand  # noqa: E402
from build_support.cuda import CudaPlan, plan_cuda  # noqa: E402
from build_support.jobs import compile_jobs, load_alone  # noqa: E402

VERSION = (ROOT / "VERSION").read_text().strip()
if os.environ.get("CCFAST_NAME_TORCH") == "1":
    VERSION += f"+torch{torch_at_hand.full_version().replace('+', '.')}"
LINUX = sys.platform.startswith("linux")
# Python's stable ABI: one build serves every Python from 3.10 on. Free-threaded ones do not have it yet.
STABLE_ABI = not sysconfig.get_config_var("Py_GIL_DISABLED")

# OpenMP: compiled with it but not linked to it: the runtime that torch has loaded is the process's one thread pool.
# -g0: Python's own flags ask for debug information, which doubles the time.
# -ffp-contract=off: the same bits with and without fused multiply-adds (csrc/common/simd.h).
# -fno-trapping-math: floating-point exceptions are not used. The values are the same, and loops with an exp become
# vector code on processors without AVX-512 too.
FLAGS = ["-g0", "-ffp-contract=off", "-fno-trapping-math", *(["-fopenmp"] if LINUX else [])]
LINK_FLAGS = ["-Wl,-s"] if LINUX else []


def declare(name: str, files: list[str]) -> Extension:
    """An extension for setuptools before torch is imported; complete() adds what torch needs."""
    return Extension(name, files, depends=sources.headers(), py_limited_api=STABLE_ABI, language="c++")


def complete(declared: Extension, plan: CudaPlan, folder: Path) -> None:
    """Add torch's include folders and libraries to an extension, and compile it as few units."""
    from torch.utils.cpp_extension import CppExtension, CUDAExtension

    emulate = declared.name.endswith("_emulated")
    options = {
        "py_limited_api": STABLE_ABI,
        "extra_link_args": [] if emulate else LINK_FLAGS,  # tests/ptx finds the kernels by their names
        "extra_compile_args": {"cxx": ["-O2" if emulate else "-O3", *FLAGS], "nvcc": ["-O3"]},
    }
    if emulate:
        options |= {"include_dirs": [str(sources.EMULATION)], "define_macros": [("CCFAST_EMULATE", "1")]}
    files = declared.sources
    if plan.toolkit and not emulate:
        files = files + sources.cuda_sources()
        options["define_macros"] = [("CCFAST_WITH_CUDA", "1")]
    make = CUDAExtension if plan.toolkit and not emulate else CppExtension
    depends = declared.depends + files  # for builds without ninja
    made = make(declared.name, sources.units(folder, files, emulate=emulate), depends=depends, **options)
    vars(declared).update(vars(made))


def build_folder(torch, plan: CudaPlan) -> Path:
    """One folder per torch, Python and backend, so that no build finds objects that were made for another."""
    place = hashlib.sha256(f"{torch.__file__} {sys.executable}".encode()).hexdigest()[:8]
    backend = "cuda" if plan.toolkit else "cpu"
    return ROOT / "build" / f"{backend}-torch{torch.__version__}-{sys.implementation.cache_tag}-{place}"


def write_build_config(torch, plan: CudaPlan, package: Path) -> None:
    """Write what the extension is built for; ``import ccfast`` compares it with the installed torch."""
    facts = {
        "version": VERSION,
        "commit": load_alone("_commit").repository_commit(),
        "torch": torch.__version__,
        "cuda": plan.version,
        "arch_list": plan.architectures.replace(";", " ").split(),
    }
    lines = ["# Written by setup.py.", *(f"{name.upper()} = {value!r}" for name, value in facts.items())]
    (package / "_build_config.py").write_text("\n".join(lines) + "\n")


def torch_command(torch, plan: CudaPlan):
    """torch's build_ext, for extensions that are declared without torch."""
    from torch.utils.cpp_extension import BuildExtension

    class TorchBuild(BuildExtension):
        def build_extensions(self) -> None:
            print(f"ccfast: torch {torch.__version__}, Python {sys.version.split()[0]}")
            target = f", for {plan.architectures}" if plan.toolkit else ""
            print(f"ccfast: CPU kernels: on; {os.environ['MAX_JOBS']} compile job(s) at a time")
            print(f"ccfast: CUDA kernels: {plan.reason}{target}", flush=True)
            super().build_extensions()

        def build_extension(self, ext) -> None:
            # One folder of objects per extension: the two compile the same files with different macros.
            shared, self.build_temp = self.build_temp, os.path.join(self.build_temp, ext.name)
            super().build_extension(ext)
            self.build_temp = shared

    return TorchBuild


class Build(build_ext):
    """Imports torch only for compiling, because metadata and an sdist need no torch."""

    def run(self) -> None:
        torch = torch_at_hand.load()
        plan = plan_cuda(torch)
        os.environ.setdefault("MAX_JOBS", str(compile_jobs()))
        folder = build_folder(torch, plan)
        command = torch_command(torch, plan)(self.distribution)
        command.__dict__ |= {name: value for name, value in vars(self).items() if name != "force"}
        command.force = command.use_ninja  # ninja knows what is out of date
        command.build_temp = str(folder)
        for ext in self.extensions:
            complete(ext, plan, folder / ext.name / "units")
        command.run()
        in_build = [Path(command.build_lib, command.get_ext_filename(ext.name)) for ext in self.extensions]
        in_place = [Path(command.get_ext_fullpath(ext.name)) for ext in self.extensions]  # in_build unless --inplace
        outputs.remove_other_builds(in_build + in_place)
        write_build_config(torch, plan, in_place[0].parent)


def dependencies() -> list[str]:
    """The extension works only with the torch it was built against, so pip must keep that torch."""
    needs = ["numpy", "scipy", "scikit-learn", "tqdm", "pyyaml", "pillow", "jinja2", "matplotlib"]
    return [*needs, *torch_at_hand.requirements()]


EXTRAS = {
    "infomap": ["infomap>=2"],
    "timm": ["timm"],
    "onnx": ["onnx", "onnxscript", "onnxruntime"],
    "tensorboard": ["tensorboard"],
    "wandb": ["wandb"],
    "mlflow": ["mlflow-skinny"],
    "safetensors": ["safetensors"],
    "bench": ["pytest", "pytest-benchmark"],
    "test": ["pytest", "pytest-xdist", "hypothesis", "pytest-benchmark", "infomap>=2"],
    "cuda12": ["cupy-cuda12x"],
    "cuda13": ["cupy-cuda13x"],
    "docs": ["mkdocs-material", "mkdocstrings[python]"],
    "dev": ["ruff", "clang-format", "pre-commit", "cmake", "mypy"],
}
IN_ALL = ("infomap", "timm", "onnx", "tensorboard", "safetensors", "bench", "test")
EXTRAS["all"] = sorted({need for extra in IN_ALL for need in EXTRAS[extra]})

EXTENSIONS = [declare("ccfast._C", sources.cpu_sources())]
if os.environ.get("CCFAST_EMULATE") == "1":
    EXTENSIONS.append(declare("ccfast._C_emulated", sources.emulated_sources()))

setup(
    version=VERSION,
    install_requires=dependencies(),
    extras_require=EXTRAS,
    ext_modules=EXTENSIONS,
    cmdclass={"build_ext": Build},
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if STABLE_ABI else {},
)
