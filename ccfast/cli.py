"""The command line; ``ccfast.commands`` has one module per command.

Exit status: 0 done, 1 could not continue, 2 wrong input.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from ccfast._errors import InputError, RunError
from ccfast._failures import told
from ccfast._files import printable
from ccfast._output import ends_with_its_reader, nobody_reads, set_up_log
from ccfast._program import choose_threads

COMMANDS = (
    "train", "pretrain", "evaluate", "report", "extract", "export", "cluster", "search", "info", "check", "bench-train",
)  # fmt: skip

INTERRUPTED = 130  # 128 + SIGINT, as shells have it


@ends_with_its_reader
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    options = vars(_parser().parse_args(arguments))
    name = options.pop("command")
    choose_threads()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a job that is asked to end says how to resume
    set_up_log(quiet=options.get("quiet", False))
    try:
        importlib.import_module("ccfast._public")
    except ImportError as error:  # not built, or built for another torch
        return _fail(name, error, 1)
    try:
        _module(name).run(options)
    except InputError as error:
        return _fail(name, error, 2)
    except RunError as error:
        return _fail(name, error, 1)
    except KeyboardInterrupt as error:
        return _fail(name, str(error) or "interrupted", INTERRUPTED)
    except (MemoryError, OSError, RuntimeError) as error:
        if isinstance(error, BrokenPipeError) and nobody_reads():
            raise
        words = told(error, name)
        if words is None:
            raise
        return _fail(name, words, 1)
    return 0


class _Parser(argparse.ArgumentParser):
    """A parser whose ``--help`` raises BrokenPipeError if the reader has ended; argparse ignores it."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if message:
            (file or sys.stderr).write(message)


class _Version(argparse.Action):
    """``--version``: the version of ccfast, and of the torch it was built for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        try:
            built = importlib.import_module("ccfast._build_config")
        except ImportError:
            parser.exit(1, "ccfast: its extension has not been built\n")
        print(f"ccfast {built.VERSION}, built for torch {built.TORCH}")
        parser.exit()


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"ccfast.commands.{name.replace('-', '_')}")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="ccfast", description="Fast Cluster Contrast: re-ID training without labels.")
    parser.add_argument(
        "--version", action=_Version, nargs=0, dest=argparse.SUPPRESS, help="print the version and exit"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = _module(name)
        command = commands.add_parser(name, help=module.HELP, allow_abbrev=False, argument_default=argparse.SUPPRESS)
        module.add_options(command)
    return parser


def _fail(command: str, message: object, status: int) -> int:
    text = str(message)
    if "Original Traceback" in text:  # an error of a process that loads images; its last line has the message
        text = text.splitlines()[-1].partition(": ")[2]
    print(printable(f"ccfast {command}: {text}"), file=sys.stderr)
    return status
