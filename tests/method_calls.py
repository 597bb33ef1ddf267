"""Which call of ccfast a golden file is an output of: one function per method, by the name of its files."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch
from method_goldens import Golden
from torch import Tensor

from ccfast.nn import ClusterMemory


def _cluster_memory(case: Golden) -> ClusterMemory:
    clusters, dim = case["memory"].shape
    mode = "hardest" if case["use_hard"] else "sequential"
    memory = ClusterMemory(dim, clusters, case["temperature"], case["momentum"], mode, update="backward")
    memory.features = case["memory"].clone()
    return case.module(memory)


def memory_twice(case: Golden) -> None:
    memory = _cluster_memory(case)
    for step in case.steps("first_inputs"):
        first, second = case.inputs("first_inputs", step), case.inputs("second_inputs", step)
        losses = torch.stack([memory(first, case["first_targets"][step]), memory(second, case["second_targets"][step])])
        losses.sum().backward()
        case.loss("losses", losses, step)
        case.gradient("grad_first", first.grad, step)
        case.gradient("grad_second", second.grad, step)
        case.bank("memory_after", memory.features, step)


def memory_modes(case: Golden) -> None:
    memory = _cluster_memory(case)
    for step, operation in enumerate(case["operations"]):
        memory.train(operation != "eval")
        halves = [case["inputs"][step, half].clone().requires_grad_(operation != "no_input_grad") for half in (0, 1)]
        targets = case["targets"][step]
        losses = [torch.zeros((), dtype=case.dtype) for _ in halves]
        between: Tensor | None = None

        def call(half: int, halves: list = halves, targets: Tensor = targets, losses: list = losses) -> Tensor:
            losses[half] = memory(halves[half], targets[half])
            return losses[half]

        with torch.no_grad() if operation == "no_grad" else contextlib.nullcontext():
            loss = call(0)
        if operation == "two_then_two":
            call(1)
        if operation in ("accumulate", "two_then_two"):
            (loss / 2).backward()
            between = memory.features.clone()
            ((call(1) if operation == "accumulate" else losses[1]) / 2).backward()
        elif operation == "backward_twice":
            loss.backward(retain_graph=True)
            between = memory.features.clone()
            loss.backward()
        elif operation in ("train", "eval", "half_loss"):
            (loss / 2 if operation == "half_loss" else loss).backward()
        else:
            assert operation in ("no_backward", "no_grad", "no_input_grad"), operation
        case.loss("losses", torch.stack([loss.detach().cpu() for loss in losses]), step)
        gradients = [torch.zeros_like(half) if half.grad is None else half.grad for half in halves]
        case.gradient("grad", torch.stack(gradients), step)
        case.bank("memory_between", memory.features if between is None else between, step)
        case.bank("memory_after", memory.features, step)


CALLS: dict[str, Callable[[Golden], None]] = {
    "memory_modes": memory_modes,
    "memory_twice": memory_twice,
}
