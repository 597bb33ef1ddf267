"""Fixtures that every test of the ops shares: where to run (backend) and what to run (implementation)."""

from __future__ import annotations

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

# Same examples in every run: a failure in CI is a failure at home.
hypothesis.settings.register_profile("ccfast", max_examples=25, deadline=None, derandomize=True, database=None)
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


def _backend(name: str) -> Backend:
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if name == "cuda" and EMULATED:
        pytest.skip("CCFAST_EMULATE=1 runs the CUDA kernels on CPU tensors")
    if name == "cuda" and ccfast.build_info()["cuda"] is None:
        pytest.skip("ccfast was built without CUDA (CCFAST_CUDA)")
    if name == "emulated" and not EMULATED:
        pytest.skip("the emulated CUDA kernels are not loaded (CCFAST_EMULATE=1)")
    if name == "cpu" and EMULATED:
        pytest.skip("CCFAST_EMULATE=1 puts the CUDA kernels in the place of the CPU's")
    return Backend(name, torch.device("cuda" if name == "cuda" else "cpu"))


@pytest.fixture(scope="session", params=["cpu", "emulated", pytest.param("cuda", marks=pytest.mark.cuda)])
def backend(request: pytest.FixtureRequest) -> Backend:
    """Where the op under test runs: CPU kernels, CUDA kernels compiled for the host, CUDA kernels on a GPU."""
    return _backend(request.param)


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
    """At least two threads for the test's duration, so that a split over threads can show."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
