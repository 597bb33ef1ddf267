"""The precision of the encoder's passes: float32, or automatic mixed precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """``precision(function, *arguments)`` returns the features ``function(*arguments)`` [B, D] float32 of unit norm.

    Only the encoder runs under autocast. Its features are normalised again in float32, and everything after it (loss,
    memory, clustering) is float32. ``scaler`` scales the gradients of fp16, and otherwise does nothing; checkpoints
    save its state.

    Args:
        amp: "none", "bf16" or "fp16".
        device: the device of the encoder.
    """

    def __init__(self, amp: str = "none", device: torch.device | str = "cpu") -> None:
        self.device_type = torch.device(device).type
        self.dtype = _DTYPES.get(amp)
        self.scaler = torch.amp.GradScaler(self.device_type, enabled=amp == "fp16")

    def __call__(self, function: Callable[..., Tensor], *arguments: Any) -> Tensor:
        """Run ``function`` in this precision."""
        if self.dtype is None:
            return function(*arguments)
        with torch.autocast(self.device_type, self.dtype):
            features = function(*arguments)
        return F.normalize(features.float(), dim=1)
