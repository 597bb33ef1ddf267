"""One call of an op with small inputs, compared with the reference, with a second run and with a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import ccfast
from ccfast.check.capture import captured

CPU = torch.device("cpu")
HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True, eq=False)
class Trial:
    """One call.

    Attributes:
        op: its name in ``ccfast`` and in ``ccfast.reference``.
        title: a description of the inputs and the options.
        call: ``call(package, *inputs)`` with one of the two packages; returns a tensor, a number, or a tuple of them.
        inputs: tensors on the CPU; each call gets its own copy, which it may change and return.
        allowed: the largest allowed difference from the reference, relative to the largest entry of its answer;
            integers, and answers with 0 here, must be equal.
        graph: whether a CUDA graph can capture the call, that is, whether it never waits for the GPU.
    """

    op: str
    title: str
    call: Callable[..., Any]
    inputs: tuple[Any, ...]
    allowed: float = 0.0
    graph: bool = False


@dataclass(frozen=True)
class Outcome:
    """The result of a trial: the largest difference from the reference, and one sentence per fault."""

    difference: float
    faults: tuple[str, ...] = ()


def run_trial(trial: Trial, device: torch.device) -> Outcome:
    """Run a trial on ``device`` and the reference on the CPU."""
    truth = tensors_of(trial.call(ccfast.reference, *copied(trial.inputs, CPU)))
    found = tensors_of(trial.call(ccfast, *copied(trial.inputs, device)))
    again = tensors_of(trial.call(ccfast, *copied(trial.inputs, device)))
    largest, fault = compare(found, truth, trial.allowed)
    faults = [f"differs from the reference: {fault}"] if fault else []
    if not all(map(same_bits, found, again)):
        faults.append("a second run gave different bits")
    if trial.graph and device.type == "cuda":
        replayed = _from_graph(trial, device)
        if not all(map(same_bits, found, replayed)):
            faults.append(f"replayed as a CUDA graph it gave a different result: {compare(replayed, found, 0)[1]}")
    return Outcome(largest, tuple(faults))


def _from_graph(trial: Trial, device: torch.device) -> list[Tensor]:
    inputs = copied(trial.inputs, device)

    def restore() -> None:
        with torch.no_grad():
            for target, source in zip(inputs, trial.inputs, strict=True):
                if isinstance(target, Tensor):
                    target.copy_(source)

    return tensors_of(captured(lambda: trial.call(ccfast, *inputs), restore).answer)


def copied(inputs: tuple[Any, ...], device: torch.device) -> tuple[Any, ...]:
    """The inputs with copies of the tensors on ``device``, which require a gradient if the originals do."""
    return tuple(
        value.detach().clone().to(device).requires_grad_(value.requires_grad) if isinstance(value, Tensor) else value
        for value in inputs
    )


def tensors_of(answer: Any) -> list[Tensor]:
    """The tensors of an answer, detached; numbers become tensors, tuples are opened."""
    return list(_tensors_of(answer))


def _tensors_of(answer: Any) -> Iterator[Tensor]:
    if isinstance(answer, tuple):
        for part in answer:
            yield from _tensors_of(part)
    else:
        yield answer.detach() if isinstance(answer, Tensor) else torch.tensor(answer)


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are equal; NaN equals NaN."""
    return a.dtype == b.dtype and a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())


def compare(found: list[Tensor], truth: list[Tensor], allowed: float) -> tuple[float, str]:
    """The largest difference of all tensors, and a text about the first that differs too much, or ""."""
    largest, fault = 0.0, ""
    for place, (ours, theirs) in enumerate(zip(found, truth, strict=True)):
        ours = ours.cpu()
        theirs = theirs.cpu()
        which = f"output {place}: " if len(truth) > 1 else ""
        if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
            fault = fault or f"{which}{_kind(ours)} where the reference has {_kind(theirs)}"
            continue
        difference = largest_difference(ours, theirs)
        limit = 0.0 if not theirs.is_floating_point() else _limit(allowed, theirs.dtype)
        if not difference <= limit:
            fault = (
                fault or f"{which}{_first_difference(ours, theirs)}, by {difference:.2g}, at most {limit:.2g} allowed"
            )
        largest = max(largest, difference)
    return largest, fault


def largest_difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, relative to the largest finite entry of ``theirs``; infinity against a number."""
    ours, theirs = ours.double(), theirs.double()
    same = (ours == theirs) | (ours.isnan() & theirs.isnan())
    if bool(same.all()):
        return 0.0
    sizes = theirs.abs()
    scale = float(sizes[sizes.isfinite()].max()) if bool(sizes.isfinite().any()) else 0.0
    difference = (ours - theirs).abs().masked_fill(same, 0).nan_to_num(nan=torch.inf)
    return float(difference.max()) / (scale or 1.0)


def _limit(allowed: float, dtype: torch.dtype) -> float:
    """Outputs in half precision may also be rounded to a neighbouring number."""
    return max(allowed, torch.finfo(dtype).eps) if allowed and dtype in HALF else allowed


def _first_difference(ours: Tensor, theirs: Tensor) -> str:
    differs = (ours != theirs) & ~((ours != ours) & (theirs != theirs))
    ours, theirs = ours[differs], theirs[differs]
    worst = int((ours.double() - theirs.double()).abs().nan_to_num(nan=torch.inf).argmax())
    count = f"{len(ours)} of {differs.numel()} entries" if differs.numel() > 1 else "the value"
    return f"{count}, such as {ours[worst].item():.6g} where the reference has {theirs[worst].item():.6g}"


def _kind(value: Tensor) -> str:
    return f"{short(value.dtype)} {tuple(value.shape)}"


def short(dtype: torch.dtype) -> str:
    """The name of a dtype."""
    return str(dtype).removeprefix("torch.")
