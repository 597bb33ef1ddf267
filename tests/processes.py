"""Runs as torchrun starts them, and what of two runs can be compared."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import Any


def ccfast_in_processes(size: int, command: str, options: dict[str, Any], status: int = 0) -> list[str]:
    """``ccfast COMMAND`` with ``options`` in ``size`` processes on one thread each.

    All of them must end with ``status``; returns what each of them printed.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = [text for name, value in options.items() for text in ("--" + name.replace("_", "-"), str(value))]
    common = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "ccfast", command, *flags],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(size)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [status] * size, outputs
    return outputs


def without_costs(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """``records`` of metrics.jsonl but for what depends on the machine."""
    return [{k: v for k, v in record.items() if k not in ("seconds", "peak_memory_mb")} for record in records]
