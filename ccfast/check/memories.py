"""Memories: their updates, the product with one, means by label, queues."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import ccfast
from ccfast._arguments import GROUP_MODES, MODES
from ccfast.check import eager
from ccfast.check.inputs import batches_of_a_memory, clustered, duplicates, memory_batch
from ccfast.check.speed import Size, Speed
from ccfast.check.trial import Trial, short

#: Allowed differences of a float32 and of a float64 memory.
ALLOWED = {torch.float32: 2e-6, torch.float64: 1e-12}
#: Images per identity in a batch, as the sampler draws them; rows and dimensions of MoCo's queue.
INSTANCES = 16
QUEUE, QUEUE_DIM = 65_536, 128


def trials() -> Iterator[Trial]:
    """All of the family."""
    for dtype in ALLOWED:
        for mode in (*MODES, *GROUP_MODES):
            yield from _updates(dtype, mode)
        yield from _products(dtype)
        yield from _queues(dtype)
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        yield from _means(dtype)


def speeds(size: Size) -> list[Speed]:
    """All of the family."""
    batch = f"B={size.batch} D={size.dim:,} C={size.identities}"

    def step(device: torch.device) -> tuple[Tensor, ...]:
        return training_step(size, device)

    def similarities(device: torch.device) -> tuple[Tensor, Tensor, int]:
        values = torch.randn(size.batch, size.images, generator=torch.Generator().manual_seed(0)).to(device)
        return values, torch.arange(size.images, device=device) % size.identities, size.identities

    def queue(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        rows = torch.randn(size.batch, QUEUE_DIM, generator=torch.Generator().manual_seed(0)).to(device)
        return torch.zeros(QUEUE, QUEUE_DIM, device=device), torch.zeros(1, dtype=torch.int64, device=device), rows

    put = _put(ccfast.enqueue_), _put(eager.enqueue_)
    return [
        Speed("update_memory_", batch, step, _moved(ccfast.update_memory_), _moved(eager.update_memory_)),
        Speed(
            "memory_similarity", f"{batch}, both passes", step,
            lambda m, x, y: _similarity(ccfast, x, m, y), lambda m, x, y: _similarity(ccfast.reference, x, m, y),
        ),
        Speed(
            "segment_mean", f"B={size.batch} N={size.images:,} C={size.identities}", similarities,
            ccfast.segment_mean, eager.segment_mean,
        ),
        Speed("enqueue_", f"B={size.batch} K={QUEUE:,} D={QUEUE_DIM}", queue, *put),
    ]  # fmt: skip


def training_step(size: Size, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """(memory, features, labels) of a batch as the sampler draws it, unit rows."""
    generator = torch.Generator().manual_seed(0)
    memory = F.normalize(torch.randn(size.identities, size.dim, generator=generator), dim=1)
    drawn = torch.randperm(size.identities, generator=generator)[: size.batch // INSTANCES]
    labels = drawn.repeat_interleave(INSTANCES)
    noise = torch.randn(len(labels), size.dim, generator=generator) * (2 / size.dim**0.5)
    return memory.to(device), F.normalize(memory[labels] + noise, dim=1).to(device), labels.to(device)


def _moved(update: Callable[..., None]) -> Callable[..., Tensor]:
    def call(memory: Tensor, features: Tensor, labels: Tensor) -> Tensor:
        update(memory, features, labels)
        return memory

    return call


def _put(enqueue: Callable[..., None]) -> Callable[..., Tensor]:
    def call(queue: Tensor, pointer: Tensor, rows: Tensor) -> Tensor:
        enqueue(queue, pointer, rows)
        return queue

    return call


def _updates(dtype: torch.dtype, mode: str) -> Iterator[Trial]:
    name = f"{mode}, {short(dtype)}"
    for title, (memory, features, labels) in batches_of_a_memory(dtype).items():
        groups = (torch.arange(len(labels)) * 5 % 3,) if mode in GROUP_MODES else ()
        for momentum in (0.0, 0.1, 1.0):
            given = (memory, features, labels, *groups)
            yield Trial(
                "update_memory_", f"{name}, {title}, momentum={momentum}", _update(mode, momentum), given,
                ALLOWED[dtype], graph=True,
            )  # fmt: skip
    if mode == "hardest":
        memory, features, labels = memory_batch(7, 37, 41, dtype)
        given = (memory, features, labels, memory_batch(7, 37, 41, dtype, seed=1)[0])
        yield Trial(
            "update_memory_", f"{name}, with a reference", _update_by_reference, given, ALLOWED[dtype], graph=True
        )


def _update(mode: str, momentum: float):
    def call(package: ModuleType, memory: Tensor, features: Tensor, labels: Tensor, groups: Any = None) -> Tensor:
        package.update_memory_(memory, features, labels, momentum, mode, groups=groups)
        return memory

    return call


def _update_by_reference(
    package: ModuleType, memory: Tensor, features: Tensor, labels: Tensor, reference: Tensor
) -> Tensor:
    package.update_memory_(memory, features, labels, 0.2, "hardest", reference=reference)
    return memory


def _products(dtype: torch.dtype) -> Iterator[Trial]:
    memory, features, labels = memory_batch(13, 37, 29, dtype)
    name = short(dtype)
    for of_memory in (False, True):
        given = (2 * features, memory.clone().requires_grad_(of_memory), labels)
        yield Trial("memory_similarity", f"{name}, gradient", _gradient, given, ALLOWED[dtype], graph=True)
    yield Trial("memory_similarity", f"{name}, moves in backward", _twice, (memory, features, labels), ALLOWED[dtype])
    for half in (torch.float16, torch.bfloat16) if dtype is torch.float32 else ():
        given = (features.to(half), memory.to(half), labels)
        yield Trial("memory_similarity", short(half), _gradient, given, ALLOWED[dtype], graph=True)


def _gradient(package: ModuleType, features: Tensor, memory: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    features = features.detach().requires_grad_()
    similarity = package.memory_similarity(features, memory)
    leaves = [value for value in (features, memory) if value.requires_grad]
    return similarity, *torch.autograd.grad(similarity.square().sum(), leaves)


def _similarity(package: ModuleType, features: Tensor, memory: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """One call of an authors' bank: forward, gradient, update."""
    features = features.detach().requires_grad_()
    similarity = package.memory_similarity(features, memory, lambda x: ccfast.update_memory_(memory, x, labels))
    return similarity, torch.autograd.grad(similarity.square().sum(), features)[0]


def _twice(package: ModuleType, memory: Tensor, features: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    """Two calls before one backward: the memory is updated twice, and the first call's gradient uses updated rows."""

    def move(x: Tensor) -> None:
        package.update_memory_(memory, F.normalize(x, dim=1), labels, 0.5)

    first, second = (features * factor for factor in (1.0, 2.0))
    first, second = first.detach().requires_grad_(), second.detach().requires_grad_()
    losses = [package.memory_similarity(x, memory, move).square().sum() for x in (first, second)]
    sum(losses).backward()
    return *losses, first.grad, second.grad, memory


def _means(dtype: torch.dtype) -> Iterator[Trial]:
    rows, ids = clustered(203, dim=37, identities=11)
    allowed = 1e-12 if dtype is torch.float64 else 1e-6
    name = short(dtype)
    for title, labels in (
        ("every label", ids),
        ("noise", ids - 3),
        ("one column", ids.where(torch.arange(203) == 7, -1)),
    ):
        given = (rows.T.contiguous().to(dtype), labels.clamp_min(-1))
        yield Trial("segment_mean", f"{name}, {title}", _mean_and_gradient, given, allowed, graph=True)


def _mean_and_gradient(package: ModuleType, similarities: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    similarities = similarities.detach().requires_grad_()
    means, present = package.segment_mean(similarities, labels, 13)
    return means, present, torch.autograd.grad((means * means.detach().cos()).sum(), similarities)[0]


def _queues(dtype: torch.dtype) -> Iterator[Trial]:
    rows = duplicates(71, 37).to(dtype)
    for title, pointer, count in (
        ("ring, around its end", 30, 19),
        ("ring, all of it", 5, 33),
        ("ring, one row", 32, 1),
    ):
        given = (rows[:33], torch.tensor([pointer]), rows[33 : 33 + count])
        yield Trial("enqueue_", f"{short(dtype)}, {title}", _enqueue, given, graph=True)
    for count in (1, 19, 33):
        given = (rows[:33], None, rows[33 : 33 + count])
        yield Trial("enqueue_", f"{short(dtype)}, {count} rows in front", _enqueue, given, graph=True)


def _enqueue(package: ModuleType, queue: Tensor, pointer: Tensor | None, rows: Tensor) -> tuple[Tensor, ...]:
    package.enqueue_(queue, pointer, rows)
    return (queue,) if pointer is None else (queue, pointer)
