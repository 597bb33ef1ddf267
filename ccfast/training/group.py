"""The processes of a run: one, or several started by torchrun, each with its own GPU and its slice of every batch.

Together they compute what one process does: the loss is taken over the whole batch, against a memory that every process
keeps and updates alike, and BatchNorm groups never cross a slice (as with DataParallel, the published setting).
"""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Sampler

from ccfast._errors import InputError

T = TypeVar("T")

Batch = list[tuple[int, int]]
Csr = tuple[Tensor, Tensor, Tensor]


class Group:
    """This process's ``rank`` among ``size``; with ``size`` 1 everything below is the identity."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def is_main(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    def slice_of(self, count: int, rank: int | None = None) -> slice:
        """The share of ``count`` rows that a process has (this one): contiguous, lengths at most one apart."""
        rank = self.rank if rank is None else rank
        return slice(rank * count // self.size, (rank + 1) * count // self.size)

    def gather(self, rows: Tensor, count: int) -> Tensor:
        """All ``count`` rows from every process's :meth:`slice_of` them; the gradient flows to this process's own."""
        if self.size == 1:
            return rows
        return self._gather(rows, [len(range(count)[self.slice_of(count, rank)]) for rank in range(self.size)])

    def gather_csr(self, rows: Csr, count: int) -> Csr:
        """All ``count`` sparse rows (crow, col, values) from every process's :meth:`slice_of` them."""
        if self.size == 1:
            return rows
        crow, col, values = rows
        entries = self.gather(crow.diff(), count)
        crow = torch.cat([crow.new_zeros(1), entries.cumsum(0)])
        lengths = [int(entries[self.slice_of(count, rank)].sum()) for rank in range(self.size)]
        return crow, self._gather(col, lengths), self._gather(values, lengths)

    def _gather(self, rows: Tensor, lengths: list[int]) -> Tensor:
        """``lengths[rank]`` rows of every process, one after the other."""
        message = rows.detach().new_zeros(max(lengths), *rows.shape[1:])
        message[: len(rows)] = rows.detach()
        shares = [torch.empty_like(message) for _ in lengths]
        dist.all_gather(shares, message)
        parts = [share[:length] for share, length in zip(shares, lengths, strict=True)]
        parts[self.rank] = rows
        return torch.cat(parts)

    def collect(self, value: T) -> list[T]:
        """What every process gives, in the order of their ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def parallel(self, module: nn.Module, device: torch.device) -> nn.Module:
        """``module`` whose gradients are averaged over the processes, while the backward pass goes on."""
        if self.size == 1:
            return module
        devices = [device] if device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=devices, broadcast_buffers=False)

    def share_buffers(self, module: nn.Module) -> None:
        """BatchNorm's statistics as the main process has them, as DataParallel keeps its first replica's."""
        if self.size > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, src=0)

    def share(self, tensor: Tensor) -> Tensor:
        """``tensor`` as the main process has it."""
        if self.size > 1:
            dist.broadcast(tensor, src=0)
        return tensor

    def lost(self, error: RuntimeError) -> bool:
        """Whether ``error`` says that the other processes cannot be reached any more."""
        if self.size == 1:
            return False
        return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in ("gloo", "nccl"))


#: The group of a run in a single process.
ALONE = Group()


class SliceOfBatches(Sampler[Batch]):
    """A process's slice of each batch of ``batches``, which draws the same in every process."""

    def __init__(self, batches: Sampler[Batch], group: Group) -> None:
        self.batches, self.group = batches, group

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches:
            yield batch[self.group.slice_of(len(batch))]


def join(device: torch.device) -> tuple[Group, torch.device]:
    """The group that torchrun put this process in, and its own device. Only the main process speaks."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Group(), device
    if device.type == "cuda":
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise InputError(f"torchrun: process {local} has no GPU: there are {torch.cuda.device_count()}")
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    group = Group(dist.get_rank(), dist.get_world_size())
    if not group.is_main:
        logging.getLogger("ccfast").setLevel(logging.ERROR)
    return group, device


def leave(group: Group) -> None:
    """Undo :func:`join`; wrappers that still hold on to the group go first: its threads must end before the process."""
    if group.size > 1:
        gc.collect()
        dist.barrier()
        dist.destroy_process_group()
