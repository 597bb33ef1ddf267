"""Functions and runs in several processes, and the values of two runs that can be compared.

The processes are forked from a server that has loaded torch and ccfast, which saves seconds per process.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist

import ccfast
from ccfast.training.group import Group, leave


def together(size: int, function: Callable[[Group], Any], folder: Path) -> list[Any]:
    """Run ``function(group)`` in ``size`` processes of one thread, which meet in ``folder``; return their results."""
    _start(size, _in_a_group, size, function, str(folder))
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(size)]


def _in_a_group(rank: int, size: int, function: Callable[[Group], Any], folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    group = Group(rank, size)
    torch.save(function(group), f"{folder}/{rank}.pt")
    if dist.is_initialized():
        leave(group)


def ccfast_in_processes(
    size: int, command: str, options: dict[str, Any], status: int = 0, flags: Sequence[str] = ()
) -> list[str]:
    """Run ``ccfast COMMAND`` with ``options`` and ``flags`` in ``size`` processes of one thread, with the environment
    that torchrun sets.

    All must end with ``status``. Returns the output of each.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pairs = [text for name, value in options.items() for text in ("--" + name.replace("_", "-"), str(value))]
    common = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with TemporaryDirectory() as folder:
        _start(size, _command_line, [command, *pairs, *flags], common, folder, status=status)
        return [Path(folder, str(rank)).read_text() for rank in range(size)]


def _command_line(rank: int, arguments: list[str], environment: dict[str, str], folder: str) -> None:
    """The command line in this process, with its output in a file."""
    from ccfast.cli import main

    output = os.open(f"{folder}/{rank}", os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(environment, RANK=str(rank), LOCAL_RANK=str(rank))
    torch.set_num_threads(1)
    sys.exit(main(arguments))


def in_a_process(function: Callable[..., None], *arguments: Any) -> None:
    """``function(0, *arguments)`` in a new process, which must succeed."""
    _start(1, function, *arguments)


def without_torch(script: str) -> list[str]:
    """The command that runs ``script`` without loading torch, for speed; its imports from ccfast need no torch."""
    alone = (
        "import sys, types\n"
        "package = sys.modules['ccfast'] = types.ModuleType('ccfast')\n"
        f"package.__path__ = [{os.path.dirname(ccfast.__file__)!r}]\n"
    )
    return [sys.executable, "-c", f"{alone}{script}\nassert 'torch' not in sys.modules"]


class Command:
    """``ccfast`` with ``arguments`` in a new process of one thread, with the methods of ``subprocess.Popen`` in use.

    ``first`` is called in the process before the command line. ``environment`` is its whole environment; the default
    is that of this process. With ``nobody_reads`` its stdout is a pipe whose other end is closed.
    """

    def __init__(
        self,
        arguments: Sequence[Any],
        *,
        first: Callable[[], None] | None = None,
        environment: dict[str, str] | None = None,
        nobody_reads: bool = False,
    ) -> None:
        self.args = [os.fspath(each) if isinstance(each, os.PathLike) else str(each) for each in arguments]
        self._output = TemporaryDirectory()
        for name in ("out", "err"):
            Path(self._output.name, name).touch()
        given = (self.args, dict(environment or os.environ), os.getcwd(), self._output.name, nobody_reads, first)
        self._process = _server().Process(target=_alone, args=given)
        self._process.start()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """The exit status, None while it runs, or minus the number of the signal that ended it."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float = 300) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            self.kill()
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self._process.exitcode

    def done(self, timeout: float = 300) -> subprocess.CompletedProcess:
        """Wait for its end; return its status and its output as text."""
        status = self.wait(timeout)
        out, err = (Path(self._output.name, name).read_text(encoding="utf-8") for name in ("out", "err"))
        self._output.cleanup()
        return subprocess.CompletedProcess(self.args, status, out, err)


def _alone(
    arguments: list[str],
    environment: dict[str, str],
    folder: str,
    output: str,
    nobody_reads: bool,
    first: Callable[[], None] | None,
) -> None:
    """What a :class:`Command` does."""
    from ccfast.cli import main

    if nobody_reads:
        read, out = os.pipe()
        os.close(read)
    else:
        out = os.open(f"{output}/out", os.O_WRONLY)
    for target, stream in enumerate((out, os.open(f"{output}/err", os.O_WRONLY)), 1):
        os.dup2(stream, target)
    # The server's streams remember whether its own output is seekable.
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    torch.set_num_threads(1)
    if first is not None:
        first()
    sys.exit(main(arguments))


def _server() -> Any:
    """Starts processes as forks of one that has loaded the modules that all need."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch._dynamo", "ccfast.training", "ccfast.cli", "sklearn.datasets"])
    return context


def _start(size: int, function: Callable[..., None], *arguments: Any, status: int = 0) -> None:
    """``function(rank, *arguments)`` in ``size`` processes, all of which must end with ``status``."""
    context = _server()
    processes = [context.Process(target=function, args=(rank, *arguments)) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=300)
    assert [process.exitcode for process in processes] == [status] * size


def without_costs(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """``records`` of metrics.jsonl without the values that depend on the machine."""
    return [{k: v for k, v in record.items() if k not in ("seconds", "peak_memory_mb")} for record in records]
