"""The number of processors that this process may use: its affinity, and the limits of its control groups."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

#: The file in which Linux lists the control groups of a process, and their mount point.
_MEMBERSHIPS, _MOUNT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def usable_processors() -> int:
    """The processors of the process's affinity."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1


def allowed_processors() -> int:
    """The processors of the process's affinity, or fewer if its control groups allow less time; at least 1."""
    return max(1, math.ceil(min([usable_processors(), *_quotas()])))


def control_groups(controller: str) -> Iterator[Path]:
    """The folders of the control groups that limit the process's use of ``controller``, such as cpu or memory.

    The groups above a group limit it too. Inside a container a group often has its name from outside, which is not
    mounted there; its limit is then at the mount point.
    """
    for mount, name in _groups(controller):
        group = mount / name.lstrip("/")
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(mount))


def _quotas() -> Iterator[float]:
    """The limits of the process's control groups, in seconds of processor time per second."""
    for folder in control_groups("cpu"):
        yield from _quota(folder)


def _groups(controller: str) -> Iterator[tuple[Path, str]]:
    """(mount point, name) of the process's control groups that can limit ``controller``."""
    try:
        lines = _MEMBERSHIPS.read_text().splitlines()
    except OSError:  # not on this system
        return
    for _, controllers, name in (line.split(":", 2) for line in lines):
        if controllers == "":  # version 2: one group for all
            yield _MOUNT, name
        elif controller in controllers.split(","):
            yield _MOUNT / controller, name


def _quota(folder: Path) -> Iterator[float]:
    """The limit of the group ``folder``, of version 2 or 1; nothing if it has no limit ("max", -1)."""
    words = _words(folder / "cpu.max") or _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
    if len(words) == 2 and all(word.isdecimal() and int(word) for word in words):
        yield int(words[0]) / int(words[1])


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []
