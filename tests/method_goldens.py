"""One golden file of tests/golden/methods: its arrays on a backend, and the comparisons within its tolerances."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from conftest import Backend
from torch import Tensor, nn


class Golden:
    """Arrays by name (scalars as Python values), and checks that raise AssertionError.

    Attributes:
        ops: ccfast or ccfast.reference, for functions that need no module.
        dtype: the dtype of the file.
    """

    def __init__(self, path: Path, backend: Backend, ops: ModuleType) -> None:
        with np.load(path) as file:
            self._arrays = {name: file[name] for name in file.files}
        self._backend, self.ops = backend, ops
        floats = [array.dtype for array in self._arrays.values() if array.dtype.kind == "f" and array.ndim > 1]
        double = bool(floats) and floats[0] == np.float64
        self.dtype = torch.float64 if double else torch.float32

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def __getitem__(self, name: str) -> Any:
        array = self._arrays[name]
        if array.ndim == 0:
            return array.item()
        return array.tolist() if array.dtype.kind in "US" else self._backend(torch.from_numpy(array))

    def inputs(self, name: str, step: int) -> Tensor:
        """The batch of one step, which requires a gradient."""
        return self[name][step].clone().requires_grad_()

    def module(self, module: nn.Module) -> Any:
        """The module on the backend, in the dtype of the file."""
        return module.to(self._backend.device, self.dtype)

    def steps(self, name: str = "inputs") -> range:
        return range(len(self._arrays[name]))

    def _assert(self, what: str, found: Any, want: Any, tolerance: Callable[[np.ndarray], Any]) -> None:
        found = torch.as_tensor(found).detach().cpu().double().numpy()
        want = np.asarray(want, dtype=np.float64)
        assert found.shape == want.shape, f"{what}: shape {found.shape}, not {want.shape}"
        allowed = 1e-12 if self.dtype is torch.float64 else tolerance(want)
        excess = np.abs(found - want) - allowed
        assert (excess <= 0).all(), f"{what}: off by {np.abs(found - want).max():.3g}, {excess.max():.3g} too much"

    def _want(self, name: str, at: Any) -> np.ndarray:
        array = self._arrays[name]
        return array if at is None else array[at]

    def loss(self, name: str, found: Any, at: Any = None) -> None:
        self._assert(name, found, self._want(name, at), lambda want: 2e-6 + 1e-5 * np.abs(want))

    def gradient(self, name: str, found: Any, at: Any = None) -> None:
        """The tolerance follows the largest entry of the step's gradient."""
        self._assert(name, found, self._want(name, at), lambda want: 2e-6 + 5e-6 * np.abs(want).max())

    def bank(self, name: str, found: Any, at: Any = None) -> None:
        self._assert(name, found, self._want(name, at), lambda want: 1e-6)

    def equal(self, name: str, found: Any, at: Any = None) -> None:
        np.testing.assert_array_equal(torch.as_tensor(found).cpu().numpy(), self._want(name, at), name)
