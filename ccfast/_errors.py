"""The errors that the command line prints as a message instead of a stack trace."""

from __future__ import annotations


class InputError(ValueError):
    """Wrong arguments or data, before training; the command line ends with status 2."""


class RunError(RuntimeError):
    """A run that cannot continue (no clusters, loss not finite); the command line ends with status 1."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a run; the message says how to resume."""


#: Texts by which torch, its allocators, NumPy and the system report too little memory; MemoryError does by its type.
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "Cannot allocate memory", "not enough memory",
                  "Unable to allocate", "MemoryError", "bad_alloc")  # fmt: skip


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error``, from any device or process, reports too little memory."""
    if isinstance(error, InputError | RunError):
        return False
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError | OSError) and any(symptom in str(error) for symptom in _OUT_OF_MEMORY)
