"""The libraries that a build writes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def remove_other_builds(built: Iterable[Path]) -> None:
    """Removes ccfast's libraries of earlier builds from the folders of those just built.

    Python prefers ``_C.cpython-311-x86_64-linux-gnu.so`` to ``_C.abi3.so``, and a ``_C_emulated`` that was not built
    together with ``_C`` has older kernels than the sources, perhaps for another torch.
    """
    built = list(built)
    names = {path.name for path in built}
    for folder in {path.parent.resolve() for path in built}:
        for other in folder.glob("_C*.so"):
            if other.name not in names:
                print(f"ccfast: removes {other}, of an earlier build")
                other.unlink()
