"""The number of parallel compile jobs for which this process has cores and memory."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

BYTES_PER_JOB = 2 << 30
MEMINFO = Path("/proc/meminfo")
# Limit, usage, and what of the usage are cached files that are given back on demand: of control groups 2 and 1.
MEMORY_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def load_alone(name: str) -> ModuleType:
    """Load a module of ccfast from its file, because the package needs the extension, which is not built yet."""
    file = Path(__file__).parent.parent / "ccfast" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"_ccfast{name}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


processors = load_alone("_processors")


def _facts(path: Path) -> dict[str, int]:
    """The lines "name number" of a file; a number alone has the name "". Empty if the file does not exist."""
    try:
        lines = [line.replace(":", "").split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    lines = [words if len(words) > 1 else ["", *words] for words in lines if words]
    return {words[0]: int(words[1]) for words in lines if words[1].isdecimal()}


def free_memory() -> int | None:
    """Bytes of free memory for this process; None if unknown."""
    free = [kilobytes << 10 for name, kilobytes in _facts(MEMINFO).items() if name == "MemAvailable"]
    for group in processors.control_groups("memory"):
        for limit_name, usage_name, cached_name in MEMORY_FILES:
            limit, usage = _facts(group / limit_name), _facts(group / usage_name)
            if limit and usage:
                free.append(limit[""] - usage[""] + _facts(group / "memory.stat").get(cached_name, 0))
    return min(free, default=None)


def compile_jobs() -> int:
    """One job per core, and 2 GB of memory for each; at least one."""
    memory, cores = free_memory(), processors.allowed_processors()
    return cores if memory is None else max(1, min(cores, memory // BYTES_PER_JOB))
