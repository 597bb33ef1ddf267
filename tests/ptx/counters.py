"""The cost of a launch, as counted by the executor, per kernel, class of instruction and source line."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from dataclasses import dataclass, field

from . import executor

CLASSES = (
    "float32",
    "float64",
    "integer",
    "compare",
    "convert",
    "move",
    "special",
    "global",
    "shared",
    "atomic",
    "exchange",
    "branch",
    "barrier",
)


@dataclass
class Counts:
    """Counts of one kernel, or of one of its lines, over all its launches.

    Attributes:
        kernel: Its name in C++, shortened.
        launches, blocks, warps: Numbers of those that ran.
        instructions: PTX instructions by class, counted once per executing warp.
        lanes: The same, counted once per executing thread.
        divergences: Branches that split a warp.
        global_requests, sectors: Loads, stores and atomics of a warp to global memory, and 32-byte sectors they touch.
        shared_requests, wavefronts: Accesses to shared memory, and its answers; the excess are bank conflicts.
        atomics: Requests that are atomic.
    """

    kernel: str = ""
    launches: int = 0
    blocks: int = 0
    warps: int = 0
    instructions: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CLASSES, 0))
    lanes: int = 0
    divergences: int = 0
    global_requests: int = 0
    sectors: int = 0
    shared_requests: int = 0
    wavefronts: int = 0
    atomics: int = 0

    @property
    def total(self) -> int:
        """All instructions."""
        return sum(self.instructions.values())

    @property
    def barriers(self) -> int:
        """Barriers of the block, counted once per warp."""
        return self.instructions["barrier"]

    def flat(self) -> dict[str, int]:
        """The numbers above zero, by name; ``blocks`` and ``warps`` follow from the inputs."""
        numbers = {"launches": self.launches, "instructions": self.total, **self.instructions}
        for name in ("divergences", "global_requests", "sectors", "shared_requests", "wavefronts", "atomics"):
            numbers[name] = getattr(self, name)
        return {name: number for name, number in numbers.items() if number}

    def add(self, kind: str, executed: int, lanes: int, diverged: int, requests: int, sectors: int, waves: int) -> None:
        """Adds one instruction's counts."""
        self.instructions[kind] += executed
        self.lanes += lanes
        self.divergences += diverged
        self.sectors += sectors
        self.wavefronts += waves
        self.global_requests += requests if sectors else 0
        self.shared_requests += requests if waves else 0
        self.atomics += requests if kind == "atomic" else 0


def short_name(kernel: str) -> str:
    """``knn::select_kernel<half>`` from the C++ name of a kernel."""
    plain = re.sub(r"\(anonymous namespace\)::|ccfast::", "", re.sub(r"^void ", "", kernel))
    found = re.match(r"([\w:]+)(<.*?>)?\(", plain)
    arguments = re.sub(r"\w+::|__nv_|__", "", found[2] or "").replace("> >", ">>")
    return found[1] + arguments


def _label(launch: str, kernel: str) -> str:
    """The launch's name with the kernel's template arguments."""
    return launch + "".join(re.findall(r"<.*", short_name(kernel)))


def collect() -> tuple[dict[str, Counts], dict[tuple[str, str], Counts]]:
    """Counts since :func:`executor.clear_counts`: by kernel, and by kernel and ``file:line``."""
    kernels: dict[str, Counts] = {}
    lines: dict[tuple[str, str], Counts] = defaultdict(Counts)
    label = ""
    for text in executor.counts().splitlines():
        fields = text.split("\t")
        if fields[0] == "kernel":
            kernel = executor.plain_name(fields[2])
            label = _label(fields[1], kernel)
            kernels[label] = Counts(short_name(kernel), *map(int, fields[3:6]))
            continue
        kind, numbers, file, line = fields[0], [int(number) for number in fields[1:7]], fields[7], fields[8]
        kernels[label].add(kind, *numbers)
        lines[label, f"{os.path.basename(file)}:{line}"].add(kind, *numbers)
    return kernels, lines
