"""Messages for failures of the machine: what happened, and what to try."""

from __future__ import annotations

from ccfast._errors import is_out_of_memory

#: What to try if memory runs out, by command; the other commands load images and have no batch size option.
_LESS_MEMORY = {
    "train": "Try a smaller --batch-size, or --cache none.",
    "pretrain": "Try a smaller --batch-size, or --cache none.",
    "bench-train": "Try a smaller --batch-size, or smaller images (--height, --width).",
    "cluster": "Try a smaller --k1, or fewer rows.",
    "export": "Try --batch 1.",
    "check": "Try --device cpu if the machine has more memory than its GPU.",
}
_LOADING_LESS = "Try fewer --workers, or --device cpu if the machine has more memory than its GPU."

#: Other failures, by torch's message.
_ADVICE = {
    "DataLoader worker": "Try --workers 0, or more shared memory (/dev/shm).",
}


def told(error: Exception, command: str) -> str | None:
    """One line about ``error`` for the user of ``command``; None for a bug in ccfast, whose trace is needed."""
    if is_out_of_memory(error):
        return f"out of memory: {_reason(error)} {_LESS_MEMORY.get(command, _LOADING_LESS)}".replace(":  ", ": ")
    if isinstance(error, OSError):  # a full disk, a folder that is not writable
        return str(error)
    advice = next((advice for symptom, advice in _ADVICE.items() if symptom in str(error)), None)
    return None if advice is None else f"{str(error).splitlines()[0]} {advice}"


def _reason(error: Exception) -> str:
    """The line of an error that says how much memory was requested, as a sentence."""
    lines = str(error).strip().splitlines() or [""]
    line = lines[-1] if "Original Traceback" in str(error) else lines[0]  # an error of a process that loads images
    line = line.partition("] err == 0. ")[2] or line  # without the position in torch's source
    line = line.removeprefix("MemoryError: ").removeprefix("MemoryError").strip()
    return line if not line or line.endswith(".") else f"{line}."
