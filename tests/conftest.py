"""Fixtures that every test of the ops shares: where to run (backend) and what to run (implementation)."""

from __future__ import annotations

import os

# OpenMP threads that spin while they wait take the cores from other test processes. Torch reads this when it loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from torch import Tensor

import ccfast
import ccfast.reference

# Same examples in every run: a failure in CI also occurs locally. No time limit: the machine may be loaded.
hypothesis.settings.register_profile(
    "ccfast",
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("ccfast")

GOLDEN = Path(__file__).parent / "golden"
EMULATED = bool(ccfast.build_info().get("emulated", False))


@dataclass(frozen=True)
class Backend:
    """A device and the kernels behind it. Calling it moves tensors there."""

    name: str
    device: torch.device

    def __call__(self, *tensors: Any) -> Any:
        moved = [value.to(self.device) if isinstance(value, Tensor) else value for value in tensors]
        return moved[0] if len(moved) == 1 else moved


def _missing_backends() -> dict[str, str]:
    """The backends that this session cannot run on, and why."""
    emulate = "CCFAST_EMULATE=1 runs the CUDA kernels on CPU tensors, in place of the CPU kernels"
    missing = {"cpu": emulate, "cuda": emulate} if EMULATED else {"emulated": "needs CCFAST_EMULATE=1"}
    if not torch.cuda.is_available():
        missing["cuda"] = "no CUDA device"
    elif not EMULATED and ccfast.build_info()["cuda"] is None:
        missing["cuda"] = "ccfast was built without CUDA (CCFAST_CUDA)"
    return missing


MISSING = _missing_backends()
BACKENDS = [name for name in ("cpu", "emulated", "cuda") if name not in MISSING]

#: test_add_an_op.py runs the template of a new op in a copy of the tree. Also: files whose tests all need CUDA.
collect_ignore = ["template_op", *(["test_cuda.py", "test_cuda_training.py"] if "cuda" in MISSING else [])]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Campaigns run only with ``-m huge``."""
    if "huge" in config.option.markexpr:
        return
    campaigns = [item for item in items if item.get_closest_marker("huge")]
    if campaigns:
        config.hook.pytest_deselected(items=campaigns)
        items[:] = [item for item in items if not item.get_closest_marker("huge")]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print which backends the tests ran on, instead of one skip per case of a missing backend."""
    absent = "".join(f"; not on {name}: {reason}" for name, reason in MISSING.items())
    terminalreporter.write_line(f"backends: {', '.join(BACKENDS)}{absent}")


@pytest.fixture(
    scope="session",
    params=[pytest.param(name, marks=pytest.mark.cuda) if name == "cuda" else name for name in BACKENDS],
)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Where the op under test runs: CPU kernels, CUDA kernels compiled for the host, CUDA kernels on a GPU."""
    return Backend(request.param, torch.device("cuda" if request.param == "cuda" else "cpu"))


@pytest.fixture(scope="session", params=["ops", "reference"])
def implementation(request: pytest.FixtureRequest) -> ModuleType:
    """The module that holds the functions under test: the compiled ops or their references."""
    return ccfast if request.param == "ops" else ccfast.reference


@pytest.fixture(scope="session")
def golden() -> Any:
    """``golden(name)``: one file of outputs of the authors' implementation, as a dict of arrays."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(GOLDEN / f"{name}.npz") as file:
            return {key: file[key] for key in file.files}

    return load


@pytest.fixture
def two_threads() -> Iterator[None]:
    """At least two threads during the test, so that an error in the split over threads can show."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
