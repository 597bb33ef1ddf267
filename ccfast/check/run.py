"""All trials and timings of all ops, on every device."""

from __future__ import annotations

import importlib
import pkgutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import ModuleType

import torch

import ccfast.check
from ccfast._progress import clock
from ccfast.check.speed import MOST_OFF, OFF, Size, Speed, Times, time_speed
from ccfast.check.trial import Trial, run_trial


@cache
def families() -> tuple[ModuleType, ...]:
    """The files beside this one that have trials."""
    names = sorted(found.name for found in pkgutil.iter_modules(ccfast.check.__path__))
    modules = (importlib.import_module(f"ccfast.check.{name}") for name in names)
    return tuple(module for module in modules if hasattr(module, "trials"))


@dataclass(frozen=True)
class Row:
    """The result for one op on one device.

    Attributes:
        device: the device.
        op: the op's name.
        cases: the number of trials.
        difference: the largest difference from the reference, relative to the largest entry.
        graphs: the number of trials that were also replayed as a CUDA graph.
        faults: one text per fault; empty if there is none.
        times: the times of the op and of eager PyTorch, or None.
        note: why the op or its timing is left out, or "".
    """

    device: str
    op: str
    cases: int
    difference: float
    graphs: int
    faults: tuple[str, ...]
    times: Times | None
    note: str = ""


def ops() -> dict[str, list[Trial]]:
    """The trials of every op, in the order of execution."""
    found: dict[str, list[Trial]] = {}
    with _quiet():
        for family in families():
            for trial in family.trials():
                found.setdefault(trial.op, []).append(trial)
    return found


def timings(size: Size) -> dict[str, Speed]:
    """The timings of every op."""
    return {speed.op: speed for family in families() for speed in family.speeds(size)}


def check_device(device: torch.device, size: Size | None) -> Iterator[Row]:
    """One row per op, as soon as it is known; without timings if ``size`` is None."""
    speeds = {} if size is None else timings(size)
    lost = ""
    for op, trials in ops().items():
        if lost:
            yield Row(str(device), op, 0, 0.0, 0, (f"not run: the GPU did not survive {lost}",), None)
            continue
        with clock(f"{device}: {op}"), _quiet():
            row = _row(device, op, trials, speeds.get(op))
        if row.faults and device.type == "cuda" and not _alive(device):
            lost = op
        yield row


def _row(device: torch.device, op: str, trials: list[Trial], speed: Speed | None) -> Row:
    faults: list[str] = []
    largest, cases, graphs = 0.0, 0, 0
    for trial in trials:
        try:
            outcome = run_trial(trial, device)
        except ImportError as error:  # an optional package
            return Row(str(device), op, 0, 0.0, 0, (), None, f"left out: {error}")
        except Exception as error:  # an op may fail in any way on an unknown machine
            faults.append(f"{trial.title}: {_reason(error)}")
            if device.type == "cuda" and not _alive(device):
                break
            continue
        cases += 1
        graphs += trial.graph and device.type == "cuda"
        largest = max(largest, outcome.difference)
        faults += [f"{trial.title}: {fault}" for fault in outcome.faults]
    times = None if faults or speed is None else _times(speed, device, faults)
    return Row(str(device), op, cases, largest, graphs, tuple(faults), times, times.note if times else "")


def _times(speed: Speed, device: torch.device, faults: list[str]) -> Times:
    try:
        times = time_speed(speed, device)
    except torch.OutOfMemoryError:
        times = Times(speed.sizes, note="out of memory")
    except Exception as error:
        faults.append(f"{speed.sizes}: {_reason(error)}")
        times = Times(speed.sizes)
    if times.off > MOST_OFF:
        faults.append(
            f"{speed.sizes}: {times.off:.1%} of the entries differ from eager PyTorch by more than {OFF:g} of the "
            f"largest, at most {MOST_OFF:.0%} allowed"
        )
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return times


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide torch's warnings that CSR is in beta."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse", UserWarning)
        yield


def _reason(error: Exception) -> str:
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


def _alive(device: torch.device) -> bool:
    try:
        torch.cuda.synchronize(device)
    except Exception:
        return False
    return True


def devices(chosen: torch.device) -> list[torch.device]:
    """Every GPU for a device ``cuda`` without a number, or else the device itself."""
    if chosen.type != "cuda" or chosen.index is not None:
        return [chosen]
    return [torch.device("cuda", index) for index in range(torch.cuda.device_count())]


def describe(device: torch.device) -> str:
    """The description of the device for the table."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        memory = f"{properties.total_memory / 2**30:.0f} GiB"
        return f"{properties.name}, compute capability {properties.major}.{properties.minor}, {memory}"
    return "CUDA kernels emulated on the CPU" if ccfast.build_info()["emulated"] else "CPU kernels"
