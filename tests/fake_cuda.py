"""A simulated GPU: tensors for ``cuda`` are created on the CPU, and torch.cuda only checks its arguments."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from torch.overrides import TorchFunctionMode


class OnCpu(TorchFunctionMode):
    """Replaces a CUDA device by the CPU in the arguments of every function of torch."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.device:
            return func(*args, **(kwargs or {}))
        given = [_on_cpu(value) for value in args]
        return func(*given, **{name: _on_cpu(value) for name, value in (kwargs or {}).items()})


def _on_cpu(value):
    is_device = isinstance(value, torch.device) or (isinstance(value, str) and value.startswith("cuda"))
    return torch.device("cpu") if is_device and torch.device(value).type == "cuda" else value


class FakeEvent:
    """Events that are always 2 ms apart."""

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing
        self.recorded = False

    def record(self) -> None:
        self.recorded = True

    def synchronize(self) -> None:
        assert self.recorded

    def elapsed_time(self, end: FakeEvent) -> float:
        assert self.recorded and end.recorded
        return 2.0


class FakeStream:
    """A stream on which every operation has finished."""

    def wait_stream(self, stream: FakeStream) -> None:
        assert isinstance(stream, FakeStream)


class FakeGraph:
    """A graph whose work is already done: on the CPU a captured call also runs."""

    replays = 0

    def replay(self) -> None:
        FakeGraph.replays += 1


class CpuGenerator(torch.Generator):
    """A generator on the CPU, for any requested device."""

    def __new__(cls, device: object = None) -> torch.Generator:
        return super().__new__(cls)


@contextmanager
def nothing(_):
    yield


def pretend_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the parts of torch.cuda that the benchmarks use; each must exist there. For use within :class:`OnCpu`."""
    stream = FakeStream()
    properties = SimpleNamespace(L2_cache_size=1 << 16)
    if torch.backends.cuda.is_built():
        assert hasattr(torch._C._CudaDeviceProperties, "L2_cache_size")
    fakes = {
        "is_available": lambda: True,
        "synchronize": lambda: None,
        "get_device_name": lambda: "NVIDIA Fake",
        "get_device_properties": lambda _: properties,
        "current_device": lambda: 0,
        "empty_cache": lambda: None,
        "reset_peak_memory_stats": lambda: None,
        "memory_allocated": lambda: 0,
        "memory_reserved": lambda: 0,
        "max_memory_allocated": lambda: 1000,
        "mem_get_info": lambda: (1 << 34, 1 << 34),
        "current_stream": lambda: stream,
        "set_stream": lambda _: None,
        "Event": FakeEvent,
        "Stream": FakeStream,
        "stream": nothing,
        "CUDAGraph": FakeGraph,
        "graph": nothing,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)  # raises if torch has no such attribute
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch, "Generator", CpuGenerator)
