"""The states of all random generators of this process, as tensors and plain values."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def random_states() -> dict[str, Any]:
    """The states of torch's, NumPy's and Python's global generators."""
    of_numpy: Any = np.random.get_state()
    _, keys, position, has_gauss, gauss = of_numpy
    states: dict[str, Any] = {
        "cpu": torch.get_rng_state(),
        "numpy": (torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(gauss)),
        "python": random.getstate(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def set_random_states(states: dict[str, Any]) -> None:
    """Restore the result of :func:`random_states`; the states of another number of GPUs are not restored."""
    torch.set_rng_state(states["cpu"])
    keys, *rest = states["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), *rest))
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    if torch.cuda.is_available() and len(states.get("cuda", [])) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
