"""The output of ccfast: its log, in characters that the terminal has, and a quiet end if the reader has ended."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import select
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ccfast._files import printable

#: 128 + SIGPIPE, the status in shells of a program that writes to a pipe without a reader.
NOBODY_READS = 141


class Main(Protocol):
    """The command line."""

    def __call__(self, arguments: Sequence[str] | None = None) -> int:
        """The exit status."""
        ...


def set_up_log(quiet: bool) -> None:
    """Progress to stdout, warnings to stderr."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # file names may contain characters that the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    log = logging.getLogger("ccfast")
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    log.handlers.clear()
    log.propagate = False
    news, warnings = _Handler(sys.stdout), _Handler(sys.stderr)
    news.addFilter(lambda record: record.levelno < logging.WARNING)
    news.setFormatter(_Printable())
    warnings.setLevel(logging.WARNING)
    warnings.setFormatter(_Printable("%(levelname)s: %(message)s"))
    for handler in (news, warnings):
        log.addHandler(handler)


def ends_with_its_reader(main: Main) -> Main:
    """``main``, which ends without a message if its output goes to a program that has ended (``| head``)."""

    @functools.wraps(main)
    def wrapped(arguments: Sequence[str] | None = None) -> int:
        try:
            try:
                return main(arguments)
            finally:  # --help leaves by SystemExit
                _flush()
        except BrokenPipeError:
            for stream in (sys.stdout, sys.stderr):
                _lead_nowhere(stream)
            return NOBODY_READS

    return wrapped


def nobody_reads() -> bool:
    """Whether stdout or stderr has been closed at the other end."""
    return any(map(_is_closed, (sys.stdout, sys.stderr)))


if TYPE_CHECKING:
    _StreamHandler = logging.StreamHandler[Any]
else:  # Python 3.10 takes no type there
    _StreamHandler = logging.StreamHandler


class _Handler(_StreamHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """Let ``| head`` end the program instead of printing a trace for each line."""
        if isinstance(sys.exc_info()[1], BrokenPipeError):
            raise
        super().handleError(record)


class _Printable(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """The line without characters that a terminal cannot show or would interpret."""
        return printable(super().format(record))


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()


def _is_closed(stream: Any) -> bool:
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (AttributeError, OSError, ValueError):  # no stream, or not a file of the system
        return False


def _lead_nowhere(stream: Any) -> None:
    """Redirect the streams, because Python flushes them at its end and would print an error."""
    if _is_closed(stream):
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
