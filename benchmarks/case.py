"""A benchmark: one computation by several providers, and a check that they give the same result."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from benchmarks.peaks import Work
from ccfast.check.capture import Captured, captured

CPU = torch.device("cpu")
PRESETS = ("quick", "full")


@dataclass(frozen=True)
class Difference:
    """The difference between an answer and the true one."""

    what: str
    value: float

    def __str__(self) -> str:
        return f"{self.what}: {self.value:.2g}"


@dataclass(frozen=True, eq=False)
class Case:
    """One computation.

    Attributes:
        op: family of the op, with the name of its folder in csrc/.
        name: the computation.
        sizes: arguments of ``inputs``; also the key of the results.
        inputs: builds the positional arguments of every provider.
        providers: name -> function; ``ccfast`` first.
        difference: (answer, true answer) -> :class:`Difference`.
        allowed: its largest allowed value.
        allowed_to: its largest allowed value for a provider that computes less exactly.
        difference_of: another ``difference`` for a provider to which the first does not apply.
        warm_up: providers that compile something when they are first called.
        truth: the provider whose answer is true, or a function of the inputs.
        facts: properties of the inputs that affect the times, a function of the sizes.
        work: the least work for the result, a function of the sizes, from which the floor is computed.
        inputs_work: the same for building the inputs, if it is not small in comparison.
        inputs_bytes: the size of the inputs, if they can be too large.
        growth: the growth of the providers' time and memory, a function of the sizes: providers that would take too
            long at the next size are left out.
        missing: peers that cannot run -> why not.
        passes: forward, forward + backward, ...
        in_place: providers change their inputs; the check then runs on a copy.
        graph: on a GPU also timed as a CUDA graph.
        uncapturable: providers that a CUDA graph cannot capture -> why not.
        own_memory: providers that use GPU memory besides torch's, which is not counted.
    """

    op: str
    name: str
    sizes: Mapping[str, float]
    inputs: Callable[..., tuple]
    providers: Mapping[str, Callable[..., Any]]
    difference: Callable[[Any, Any], Difference]
    allowed: float = 0
    allowed_to: Mapping[str, float] = field(default_factory=dict)
    difference_of: Mapping[str, Callable[[Any, Any], Difference]] = field(default_factory=dict)
    warm_up: frozenset[str] = frozenset()
    truth: str | Callable[..., Any] = "reference"
    facts: Callable[..., dict[str, float]] | None = None
    work: Callable[..., Work] | None = None
    inputs_work: Callable[..., Work] | None = None
    inputs_bytes: Callable[..., float] | None = None
    growth: Callable[..., float] | None = None
    missing: Mapping[str, str] = field(default_factory=dict)
    passes: str = "forward"
    dtype: str = "float32"
    in_place: bool = False
    graph: bool = False
    uncapturable: Mapping[str, str] = field(default_factory=dict)
    own_memory: frozenset[str] = frozenset()

    def __str__(self) -> str:
        sizes = ",".join(f"{name}={value}" for name, value in self.sizes.items())
        return f"{self.name}[{sizes}]"

    def truth_first(self) -> list[str]:
        """The providers in an order that needs no additional call for the true answer."""
        return sorted(self.providers, key=lambda provider: provider != self.truth)


class WrongAnswer(AssertionError):
    """A provider does not compute the same as the others, so its time would be meaningless."""


class Bench:
    """A case with its inputs on its device, and its true answer."""

    def __init__(self, case: Case, device: torch.device = CPU) -> None:
        self.case, self.device = case, device
        self.inputs = moved(case.inputs(**case.sizes), device)
        self._timed_inputs = self._own_inputs()
        self._truth: Any = None

    @cached_property
    def facts(self) -> dict[str, float]:
        """Properties of the inputs that affect the times."""
        return self.case.facts(**self.case.sizes) if self.case.facts else {}

    def run(self, provider: str) -> Any:
        """One timed call."""
        return self.case.providers[provider](*self._timed_inputs)

    def first_call(self, provider: str) -> Callable[[], Any]:
        """A call whose answer is checked, with inputs that no call has changed."""
        inputs = self._own_inputs()
        return lambda: self.case.providers[provider](*inputs)

    def captured(self, provider: str) -> Captured:
        """The call as a CUDA graph, replayed once from inputs that no call has changed."""
        inputs = self._own_inputs()

        def restore() -> None:
            if self.case.in_place:
                copy_to(inputs, self.inputs)

        return captured(lambda: self.case.providers[provider](*inputs), restore)

    def _own_inputs(self) -> tuple:
        return copy.deepcopy(self.inputs) if self.case.in_place else self.inputs

    def check(self, provider: str, answer: Any, left_out: Mapping[str, str] | None = None) -> Difference | None:
        """Compare the answer of :meth:`first_call` with the true one; raise if they differ too much.

        None if the provider of the true answer is ``left_out`` at this size.
        """
        if self._truth is None:
            truth = self.case.truth
            if callable(truth):
                self._truth = truth(*self.inputs)
            elif truth in (left_out or {}):
                return None
            else:
                self._truth = answer if truth == provider else self.first_call(truth)()
        compare = self.case.difference_of.get(provider, self.case.difference)
        difference = compare(moved(answer, device_of(self._truth)), self._truth)
        allowed = self.case.allowed_to.get(provider, self.case.allowed)
        if not difference.value <= allowed:
            raise WrongAnswer(f"{self.case} by {provider}: {difference}, at most {allowed:g} allowed")
        return difference


def device_of(value: Any) -> torch.device:
    """The device of an answer, a tensor or a tuple of tensors."""
    return (value[0] if isinstance(value, tuple) else value).device


def copy_to(targets: tuple, sources: tuple) -> None:
    """Give tensors the values of others."""
    with torch.no_grad():
        for target, source in zip(targets, sources, strict=True):
            if isinstance(target, torch.Tensor):
                target.copy_(source)


def moved(value: Any, device: torch.device) -> Any:
    """The value with its tensors on the device, also those in tuples and modules."""
    if isinstance(value, tuple):
        return tuple(moved(part, device) for part in value)
    if isinstance(value, torch.nn.Module):
        return copy.deepcopy(value).to(device)
    if not isinstance(value, torch.Tensor) or value.device.type == device.type:
        return value
    return value.detach().to(device).requires_grad_(value.requires_grad)
