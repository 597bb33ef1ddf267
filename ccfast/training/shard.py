"""Rows that are distributed over the processes of a group: each holds its slice, and none holds all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from ccfast.training.group import Group


@dataclass(frozen=True)
class Shard:
    """This process's ``rows`` [n, D] of ``count`` rows: those of ``group.slice_of(count)``."""

    rows: Tensor
    count: int
    group: Group

    def __len__(self) -> int:
        """The number of rows of all processes."""
        return self.count

    @property
    def device(self) -> torch.device:
        """The device of the rows."""
        return self.rows.device

    @property
    def own(self) -> slice:
        """The row numbers of this shard."""
        return self.group.slice_of(self.count)

    def gathered(self) -> Tensor:
        """All rows [N, D], in every process; only for code that needs all rows."""
        return self.group.gather(self.rows, self.count)

    def ring(self) -> Iterator[tuple[int, Tensor]]:
        """The blocks of all processes, one after the other: the number of the block's first row, and its rows.

        Blocks travel from each process to the next, and the next block is received while one is used. So a process
        holds three blocks: its own, the one in use and the one that it receives.
        """
        size, rank = self.group.size, self.group.rank
        block = self.rows.contiguous()
        for step in range(size):
            owner = (rank - step) % size
            incoming, waiting = None, []
            if step < size - 1:
                coming = self.group.slice_of(self.count, (owner - 1) % size)
                incoming = block.new_empty(coming.stop - coming.start, block.shape[1])
                waiting = dist.batch_isend_irecv(
                    [
                        dist.P2POp(dist.isend, block, (rank + 1) % size),
                        dist.P2POp(dist.irecv, incoming, (rank - 1) % size),
                    ]
                )
            yield self.group.slice_of(self.count, owner).start, block
            for work in waiting:
                work.wait()
            if incoming is not None:
                block = incoming

    def fetch(self, wanted: Tensor) -> Tensor:
        """The rows ``wanted`` [m], ascending, from the processes that hold them; all processes call this together."""
        ends = torch.tensor([self.group.slice_of(self.count, r).stop for r in range(self.group.size)])
        asked = torch.bincount(torch.searchsorted(ends, wanted.cpu(), right=True), minlength=self.group.size)
        asked_of_me = exchange_rows(asked.to(self.device), [1] * self.group.size, [1] * self.group.size).cpu()
        out, back = asked.tolist(), asked_of_me.tolist()
        places = exchange_rows(wanted, out, back) - self.own.start
        return exchange_rows(self.rows[places], back, out)


def exchange_rows(rows: Tensor, sent: list[int], received: list[int]) -> Tensor:
    """``sent[r]`` of the ``rows`` go to process r, in order; ``received[r]`` come from it, in the order of ranks."""
    got = rows.new_empty(sum(received), *rows.shape[1:])
    dist.all_to_all_single(got, rows.contiguous(), received, sent)
    return got
