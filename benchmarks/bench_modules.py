"""A training step of every module of ccfast.nn (forward, backward, update), compared with plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ccfast.nn as modules
from benchmarks import differences, plain
from benchmarks.case import Case

#: Batch, dimensions, clusters, images, cameras of re-ID (Market-1501's training set); queue, dimensions, prototypes of
#: ImageNet's methods.
FULL = {"B": 256, "D": 2048, "C": 751, "N": 12_936, "cameras": 6, "K": 65_536, "d": 128, "P": 3000}
QUICK = {"B": 32, "D": 64, "C": 19, "N": 210, "cameras": 3, "K": 512, "d": 16, "P": 70}
INSTANCES = 16


@dataclass(frozen=True)
class Kind:
    """A module: its sizes, its construction with the inputs of a step, and where it saves time."""

    sizes: str
    make: Callable[..., tuple[Any, ...]]
    gain: str


def rows(count: int, dim: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def batch(B: int, D: int) -> Tensor:
    return rows(B, D, seed=1).requires_grad_()


def labels(B: int, C: int) -> Tensor:
    """Labels as the sampler draws them: some images from each of a few clusters."""
    generator = torch.Generator().manual_seed(2)
    return torch.randperm(C, generator=generator)[: max(1, B // INSTANCES)].repeat_interleave(INSTANCES)[:B]


def cameras(B: int, cameras: int) -> Tensor:
    return torch.randint(cameras, (B,), generator=torch.Generator().manual_seed(3))


def filled(module: Any) -> Any:
    with torch.no_grad():
        module.features.copy_(rows(len(module.features), module.features.shape[1]))
    return module


def _memory(make: Callable[..., Any]) -> Callable[..., tuple[Any, ...]]:
    return lambda B, D, C, **_: (filled(make(D, C)), batch(B, D), labels(B, C))


def _camera(B: int, D: int, C: int, **sizes: int) -> tuple[Any, ...]:
    return filled(modules.CameraMemory(D, C)), batch(B, D), labels(B, C), cameras(B, sizes["cameras"])


def _hybrid(B: int, D: int, C: int, N: int) -> tuple[Any, ...]:
    memory = filled(modules.HybridMemory(D, N))
    memory.labels = torch.arange(N) % C
    return memory, batch(B, D), torch.randperm(N, generator=torch.Generator().manual_seed(2))[:B]


def _proxies(preset: Callable[..., Any]) -> Callable[..., tuple[Any, ...]]:
    def make(B: int, D: int, C: int, **sizes: int) -> tuple[Any, ...]:
        memory = preset(D)
        of_label, of_camera = torch.cartesian_prod(torch.arange(C), torch.arange(sizes["cameras"])).T
        bank = rows(len(of_label), D)
        memory.fill(bank.repeat(1 + memory.num_parts, 1, 1) if memory.num_parts else bank, of_label, of_camera)
        inputs = batch(B, D)
        if memory.num_parts:
            inputs = inputs.detach().repeat(1 + memory.num_parts, 1, 1).requires_grad_()
        return memory, inputs, labels(B, C), cameras(B, sizes["cameras"])

    return make


def _ice(B: int, D: int, C: int, **sizes: int) -> tuple[Any, ...]:
    module = modules.IceLoss(D)
    of_label, of_camera = torch.cartesian_prod(torch.arange(C), torch.arange(sizes["cameras"])).T
    module.fill(rows(C, D), rows(len(of_label), D), of_label, of_camera)
    teacher = rows(B, D, seed=4), rows(B, D, seed=5)
    return module, batch(B, D), *teacher, labels(B, C), cameras(B, sizes["cameras"])


def _cross_modal(B: int, D: int, C: int) -> tuple[Any, ...]:
    memory = modules.CrossModalMemory(D, C, C)
    for each in (memory.visible, memory.infrared):
        filled(each)
    return memory, batch(B, D), batch(B, D), labels(B, C), labels(B, C)


def _instances(B: int, D: int, N: int) -> tuple[Any, ...]:
    return filled(modules.InstanceBank(D, N)), batch(B, D), torch.arange(B) * 3 % N


def _queue(B: int, d: int, K: int) -> tuple[Any, ...]:
    return modules.QueueContrast(d, K), batch(B, d), rows(B, d, seed=4)


def _prototypes(B: int, d: int, N: int, K: int) -> tuple[Any, ...]:
    module = modules.PrototypeContrast(d, K)
    counts = [N // 10, N // 5]
    assignments = [torch.arange(N) % count for count in counts]
    module.fill(assignments, [rows(count, d) for count in counts], [torch.full((count,), 0.2) for count in counts])
    negatives = tuple(torch.arange(min(B, count - 1), count) for count in counts)
    return module, batch(B, d), rows(B, d, seed=4), torch.arange(B), negatives


def _swapped(B: int, d: int, P: int) -> tuple[Any, ...]:
    torch.manual_seed(0)
    module = modules.SwappedAssignment(P, d, queue_length=2 * B)
    module.queue.copy_(rows(4 * B, d).view(2, 2 * B, d))
    return module, batch(8 * B, d), 8


def _supcon(B: int, d: int) -> tuple[Any, ...]:
    return modules.SupConLoss(), rows(2 * B, d).view(B, 2, d).requires_grad_(), torch.arange(B) % 10


UPDATE = "the update: one kernel instead of a loop over samples"
SETS = "no copies of the logits for the sets; backward computes the softmax again; the update"
KINDS: dict[str, Kind] = {
    "ClusterMemory": Kind("B D C", _memory(lambda D, C: modules.ClusterMemory(D, C, update="backward")), UPDATE),
    "DualMemory.hhcl": Kind("B D C", _memory(modules.DualMemory.hhcl), "both updates: one kernel each"),
    "InstanceMemory": Kind(
        "B D C",
        _memory(lambda D, C: modules.InstanceMemory(D, C, INSTANCES, centroid=True)),
        "the update of the centroids",
    ),
    "CameraMemory": Kind("B D C cameras", _camera, "the update by groups: one kernel"),
    "HybridMemory": Kind("B D C N", _hybrid, "means by label without a transposed copy; the update"),
    "ProxyMemory.cap": Kind("B D C cameras", _proxies(modules.ProxyMemory.cap), SETS),
    "ProxyMemory.o2cap": Kind("B D C cameras", _proxies(modules.ProxyMemory.o2cap), SETS),
    "ProxyMemory.pplr": Kind("B D C cameras", _proxies(modules.ProxyMemory.pplr), "no copies of the logits"),
    "ProxyMemory.tmgf": Kind("B D C cameras", _proxies(modules.ProxyMemory.tmgf), SETS),
    "IceLoss": Kind("B D C cameras", _ice, "no copies of the logits for the sets"),
    "CrossModalMemory": Kind("B D C", _cross_modal, "two updates: one kernel each"),
    "InstanceBank": Kind("B D N", _instances, "nothing: the products take all the time"),
    "QueueContrast": Kind("B d K", _queue, "nothing: the products take all the time"),
    "PrototypeContrast": Kind("B d N K", _prototypes, "nothing: the products take all the time"),
    "SwappedAssignment": Kind("B d P", _swapped, "Sinkhorn: one pass over the scores per iteration"),
    "SupConLoss": Kind("B d", _supcon, "no copies of the logits"),
}


def step(module: nn.Module, *inputs: Any) -> tuple[Tensor, ...]:
    """Loss, gradients, and the state after."""
    given = [value.detach().requires_grad_(value.requires_grad) if isinstance(value, Tensor) else value
             for value in inputs]  # fmt: skip
    loss = module(*given)
    leaves = [value for value in given if isinstance(value, Tensor) and value.requires_grad]
    gradients = torch.autograd.grad(loss, [*leaves, *module.parameters()])
    return loss.detach(), *gradients, *(b for b in module.buffers() if b.is_floating_point() and b.numel())


def _on(ops: plain.Ops) -> Callable[..., tuple[Tensor, ...]]:
    def run(module: nn.Module, *inputs: Any) -> tuple[Tensor, ...]:
        with plain.replaced(ops):
            return step(module, *inputs)

    return run


def cases(preset: str) -> list[Case]:
    sizes = {"quick": QUICK, "full": FULL}[preset]
    return [
        Case(
            op="modules",
            name=name,
            sizes={letter: sizes[letter] for letter in kind.sizes.split()},
            inputs=kind.make,
            providers={"ccfast": step, "eager torch": _on(plain.EAGER), "reference": _on(plain.REFERENCE)},
            difference=differences.values,
            allowed=2e-4,
            passes="forward + backward + update",
            in_place=True,
        )
        for name, kind in KINDS.items()
    ]


def test_modules(bench) -> None:
    bench()
