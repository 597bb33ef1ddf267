"""The methods of ``ccfast train``, one small file per method, and the base class for your own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccfast.methods.registry import METHODS, method_class

if TYPE_CHECKING:
    from ccfast.methods.method import Method

__all__ = ["METHODS", "Method", "method_class"]


def __getattr__(name: str) -> object:
    """``Method``, imported on first use: the names of the methods need no torch."""
    if name != "Method":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ccfast.methods.method import Method

    return Method
