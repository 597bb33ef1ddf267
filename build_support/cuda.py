"""Whether the CUDA kernels are built, with which toolkit and for which architectures."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

DEFAULT_ARCHITECTURES = "8.0;9.0+PTX"
FORCE = "CCFAST_CUDA=1 pip install --no-build-isolation -e ."


def toolkit_candidates() -> Iterator[Path]:
    """Possible folders of a CUDA toolkit, best first."""
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(variable):
            yield Path(os.environ[variable])
    nvcc = shutil.which("nvcc")
    if nvcc:
        yield Path(nvcc).resolve().parent.parent
        # nvcc on PATH may be a wrapper script, so the compiler itself is asked for its folder.
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
    """Such as 13.0."""
    told = subprocess.run([root / "bin" / "nvcc", "--version"], capture_output=True, text=True, check=True)
    return re.search(r"release (\d+\.\d+)", told.stdout).group(1)


@dataclass
class CudaPlan:
    """Whether CUDA kernels are built, with what, and why."""

    toolkit: Path | None
    reason: str
    architectures: str = ""

    @property
    def version(self) -> str | None:
        """The toolkit's version; None without a toolkit."""
        return toolkit_version(self.toolkit) if self.toolkit else None


def possible(torch: ModuleType) -> CudaPlan:
    """The plan that the toolkit and torch allow."""
    if torch.version.cuda is None:
        return CudaPlan(None, "off: this torch has no CUDA")
    toolkit = find_toolkit()
    if toolkit is None:
        return CudaPlan(None, f"off: no CUDA toolkit found (torch wants {torch.version.cuda}; set CUDA_HOME)")
    version = toolkit_version(toolkit)
    if version.split(".")[0] != torch.version.cuda.split(".")[0]:
        return CudaPlan(None, f"off: toolkit {version} does not fit torch's CUDA {torch.version.cuda}")
    return CudaPlan(toolkit, f"toolkit {version} in {toolkit}")


def choose_architectures(torch: ModuleType) -> str:
    """TORCH_CUDA_ARCH_LIST, the visible GPUs' architectures, or common ones."""
    if os.environ.get("TORCH_CUDA_ARCH_LIST"):
        return os.environ["TORCH_CUDA_ARCH_LIST"]
    if not torch.cuda.is_available():
        return DEFAULT_ARCHITECTURES
    visible = {torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())}
    return ";".join(f"{major}.{minor}" for major, minor in sorted(visible))


def plan_cuda(torch: ModuleType) -> CudaPlan:
    """The plan for CCFAST_CUDA; auto builds the kernels if this is possible and a GPU can run them."""
    switch = os.environ.get("CCFAST_CUDA") or "auto"
    if switch not in ("auto", "0", "1"):
        raise SystemExit(f"CCFAST_CUDA: expected auto, 0 or 1, got {switch!r}")
    if switch == "0":
        return CudaPlan(None, "off by CCFAST_CUDA=0")
    plan = possible(torch)
    if switch == "1" and plan.toolkit is None:
        raise SystemExit(f"CCFAST_CUDA=1, but the CUDA kernels cannot be built: {plan.reason}")
    wanted = switch == "1" or os.environ.get("TORCH_CUDA_ARCH_LIST") or torch.cuda.is_available()
    if plan.toolkit and not wanted:
        return CudaPlan(None, f"off: no GPU is visible; with them: {FORCE}")
    if plan.toolkit:
        plan.architectures = choose_architectures(torch)
        os.environ["TORCH_CUDA_ARCH_LIST"] = plan.architectures  # torch fails on an empty one where no GPU is visible
        os.environ["CUDA_HOME"] = str(plan.toolkit)
    return plan
