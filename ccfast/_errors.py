"""The two ways in which the training system gives up with a message instead of a stack trace."""

from __future__ import annotations


class InputError(ValueError):
    """Wrong arguments or data: nothing was trained; the command line ends with status 2."""


class RunError(RuntimeError):
    """A run that could not go on (no cluster left, loss not finite); the command line ends with status 1."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a run; the message says how to resume."""
