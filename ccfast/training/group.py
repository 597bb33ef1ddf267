"""The processes of a run: one, or several started by torchrun, each with its own GPU and its slice of every batch.

Together they compute the same as one process: the loss is computed over the whole batch, against a memory of which
every process has an equal copy, and BatchNorm groups never cross a slice (as in DataParallel, the published setting).
"""

from __future__ import annotations

import atexit
import gc
import inspect
import logging
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Sampler

from ccfast._errors import InputError, RunError

T = TypeVar("T")

Batch = list[tuple[int, int]]
Csr = tuple[Tensor, Tensor, Tensor]

#: How long the others wait for the main process. If a process dies, this is noticed at once.
PATIENCE = timedelta(days=7)

#: Within an epoch each process keeps its own BatchNorm statistics, see :meth:`Group.share_buffers`. From torch 2.13 on
#: the option has another name.
_RENAMED = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
_LOCAL_BUFFERS = {"forward_sync_buffers" if _RENAMED else "broadcast_buffers": False}


class Group:
    """This process's ``rank`` among ``size``; with ``size`` 1 all methods are the identity.

    ``messages`` is the process group for Python objects; None: the same as for tensors.
    """

    def __init__(self, rank: int = 0, size: int = 1, messages: dist.ProcessGroup | None = None) -> None:
        self.rank, self.size, self.messages = rank, size, messages

    @property
    def is_main(self) -> bool:
        """Whether this process is the main one, which writes and logs."""
        return self.rank == 0

    def slice_of(self, count: int, rank: int | None = None) -> slice:
        """A process's slice of ``count`` rows (default: this process): contiguous; lengths differ by at most 1."""
        rank = self.rank if rank is None else rank
        return slice(rank * count // self.size, (rank + 1) * count // self.size)

    def gather(self, rows: Tensor, count: int) -> Tensor:
        """All ``count`` rows from every process's :meth:`slice_of` them; the gradient flows to this process's own."""
        if self.size == 1:
            return rows
        return self.gather_stretches(rows, [len(range(count)[self.slice_of(count, rank)]) for rank in range(self.size)])

    def gather_csr(self, rows: Csr, count: int) -> Csr:
        """All ``count`` sparse rows (crow, col, values) from every process's :meth:`slice_of` them."""
        if self.size == 1:
            return rows
        crow, col, values = rows
        entries = self.gather(crow.diff(), count)
        crow = torch.cat([crow.new_zeros(1), entries.cumsum(0)])
        lengths = [int(entries[self.slice_of(count, rank)].sum()) for rank in range(self.size)]
        return crow, self.gather_stretches(col, lengths), self.gather_stretches(values, lengths)

    def gather_stretches(self, rows: Tensor, lengths: list[int]) -> Tensor:
        """``lengths[rank]`` rows of every process, one after the other."""
        message = rows.detach().new_zeros(max(lengths), *rows.shape[1:])
        message[: len(rows)] = rows.detach()
        shares = [torch.empty_like(message) for _ in lengths]
        dist.all_gather(shares, message)
        parts = [share[:length] for share, length in zip(shares, lengths, strict=True)]
        parts[self.rank] = rows
        return torch.cat(parts)

    def collect(self, value: T) -> list[T]:
        """The values of all processes, in the order of their ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.messages)
        return values

    def from_main(self, function: Callable[[], T]) -> T:
        """The result of ``function()``, which only the main process calls; its error is raised in all processes."""
        if self.size == 1:
            return function()
        value = error = None
        if self.is_main:
            try:
                value = function()
            except Exception as raised:
                error = raised
        sent: list[Any] = [value, _as_told(error)]
        dist.broadcast_object_list(sent, src=0, group=self.messages)
        if error is not None:
            raise error
        if sent[1] is not None:
            raise sent[1]
        return sent[0]

    def parallel(self, module: nn.Module, device: torch.device) -> nn.Module:
        """``module``, with gradients averaged over the processes during the backward pass."""
        if self.size == 1:
            return module
        devices = [device] if device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=devices, **_LOCAL_BUFFERS)

    def share_buffers(self, module: nn.Module) -> None:
        """Copy BatchNorm's statistics from the main process, as DataParallel keeps those of its first replica."""
        if self.size > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, src=0)

    def lost(self, error: RuntimeError) -> bool:
        """Whether ``error`` means that other processes cannot be reached any more."""
        if self.size == 1:
            return False
        return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in ("gloo", "nccl"))


def _as_told(error: Exception | None) -> Exception | None:
    """The error that the other processes raise for an error of the main process."""
    if error is None or isinstance(error, InputError | RunError):
        return error
    return RunError(f"the main process cannot continue: {type(error).__name__}: {error}")


def is_main_process() -> bool:
    """Whether torchrun gave this process rank 0, or there is only one process."""
    return int(os.environ.get("WORLD_SIZE", "1")) == 1 or os.environ.get("RANK", "0") == "0"


#: The group of a run in a single process.
ALONE = Group()


class SliceOfBatches(Sampler[Batch]):
    """A process's slice of each batch of ``batches``, which are the same in every process."""

    def __init__(self, batches: Sampler[Batch], group: Group) -> None:
        self.batches, self.group = batches, group

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches:
            yield batch[self.group.slice_of(len(batch))]


def join(device: torch.device) -> tuple[Group, torch.device]:
    """The group from torchrun, and this process's device. Only the main process logs.

    Tensors between GPUs use NCCL, which fails if a process is ten minutes late. Python objects, and so the waiting for
    the main process, always use Gloo.
    """
    if processes_started() == 1:
        return Group(), device
    if device.type == "cuda":
        local = _number("LOCAL_RANK", "0")
        if local >= torch.cuda.device_count():
            raise InputError(f"torchrun: process {local} has no GPU: there are {torch.cuda.device_count()}")
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    try:
        if not dist.is_initialized():
            on_gpu = device.type == "cuda"
            dist.init_process_group("nccl" if on_gpu else "gloo", device_id=device if on_gpu else None)
            atexit.register(_let_go)
        messages = dist.new_group(backend="gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError, OSError) as error:  # torch's DistError is a RuntimeError
        raise RunError(_not_joined(error)) from error
    group = Group(dist.get_rank(), dist.get_world_size(), messages)
    if not group.is_main:
        logging.getLogger("ccfast").setLevel(logging.ERROR)
    return group, device


def processes_started() -> int:
    """The number of processes that torchrun has started."""
    return _number("WORLD_SIZE", "1")


def _number(name: str, default: str) -> int:
    text = os.environ.get(name, default)
    if not (text.isascii() and text.isdecimal()) or len(text) > 9:
        raise InputError(f"{name}: expected a number in the environment, as torchrun sets it, got {text!r}")
    return int(text)


def _not_joined(error: Exception) -> str:
    """Why the processes could not form a group, and what to try."""
    address, port = (os.environ.get(name) for name in ("MASTER_ADDR", "MASTER_PORT"))
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    if "EADDRINUSE" in str(error) or "address already in use" in str(error).lower():
        reason = f"port {port} is in use; pass another one to torchrun (--master-port), or --standalone"
    elif "environment variable" in reason:
        reason += "; start the processes with torchrun"
    else:
        reason += f" (MASTER_ADDR {address}, MASTER_PORT {port}, RANK {os.environ.get('RANK')})"
    return f"the {os.environ['WORLD_SIZE']} processes of the run could not find each other: {reason}"


def leave(group: Group) -> None:
    """Undo :func:`join`, when all processes have reached this point."""
    if group.size > 1:
        dist.barrier()
        _let_go()


def _let_go() -> None:
    """End the group, after the wrappers that still use it; its threads must end before the process."""
    if dist.is_initialized():
        gc.collect()
        dist.destroy_process_group()
