"""Numbers of things in messages."""

from __future__ import annotations


def counted(number: int, one: str, more: str | None = None) -> str:
    """ "1 image", "1,200 images"; ``more``: the plural of ``one`` if it is not ``one`` with an s."""
    return f"{number:,} {one if number == 1 else more or f'{one}s'}"
