"""Findings while reading a data set: what was left out and why, and other notes and warnings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path


class Reason(Enum):
    """Why something was left out. The value is the text for the table, and whether to warn."""

    JUNK = "junk, identity -1", False
    HIDDEN = "hidden", False
    SYSTEM = "made by a system or a program (thumbnails and the like)", False
    NOT_IMAGES = "not images", False
    PUBLISHED = "published with the data set, but not part of the protocol", False
    SPECIAL = "neither files nor folders", True
    LOOP = "links to a folder that contains them", True
    BROKEN = "links to nothing", True
    FORMAT = "images of a format that Pillow does not open here", True
    DEEPER = "in sub-folders, where no images are expected", True
    ELSEWHERE = "not where images are expected", True
    BESIDE = "beside the folders that are read", True
    UNLISTED = "in no list", True
    TWICE = "listed twice", True
    MISSING = "listed, but missing", True
    BAD = "cannot be read as images", False  # the check of all images warns, with each error

    def __init__(self, text: str, warns: bool) -> None:
        self.text, self.warns = text, warns


@dataclass
class Group:
    """The number of files left out for a reason, the first of them, and advice."""

    count: int = 0
    example: str = ""
    advice: str = ""


@dataclass
class Findings:
    """``left_out`` counts by reason; ``notes`` are lines for the table; ``warnings`` are logged as warnings."""

    left_out: dict[Reason, Group] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    #: Maps device and inode of each folder that was read to the name by which it was read.
    visited: dict[tuple[int, int], str] = field(default_factory=dict)

    def leave_out(self, reason: Reason, example: Path | str, count: int = 1, advice: str = "") -> None:
        """Count ``count`` files that were left out; the first example and the first advice are kept."""
        group = self.left_out.setdefault(reason, Group())
        group.count += count
        group.example = group.example or printable(example)
        group.advice = group.advice or advice

    def lines(self, *, warns: bool | None = None) -> Iterator[str]:
        """One line per reason; with ``warns`` only for the reasons that warn, or only for the others."""
        for reason in Reason:
            if reason in self.left_out and warns in (None, reason.warns):
                group = self.left_out[reason]
                advice = f"; {group.advice}" if group.advice else ""
                yield f"{reason.text}: {group.count:,}, such as {group.example}{advice}"

    def summary(self) -> str:
        """ " (left out: ...)" for the end of an error message; empty if nothing was left out."""
        return f" (left out: {'; '.join(self.lines())})" if self.left_out else ""


def printable(name: Path | str) -> str:
    """``name`` in a form that every terminal can print: bytes that are not text are escaped."""
    return str(name).encode("utf-8", "backslashreplace").decode("utf-8")
