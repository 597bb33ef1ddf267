"""Each method against the outputs of its authors' code, one test per file.

``CCFAST_METHOD_GOLDENS=DIR`` takes the files of another folder. The arrays and the tolerances are described in
golden/methods/README.md.
"""

from __future__ import annotations

import os
import pkgutil
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from conftest import GOLDEN, Backend
from method_calls import CALLS
from method_goldens import Golden

import ccfast.nn

FOLDER = Path(os.environ.get("CCFAST_METHOD_GOLDENS", GOLDEN / "methods"))
FILES = sorted(FOLDER.glob("*.npz"))


def use_references(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces each op by its reference in the modules of ccfast.nn."""
    for found in pkgutil.iter_modules(ccfast.nn.__path__):
        module = import_module(f"ccfast.nn.{found.name}")
        for name in ccfast.reference.__all__:
            if hasattr(module, name):
                monkeypatch.setattr(module, name, getattr(ccfast.reference, name))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_authors_outputs(
    path: Path, implementation: ModuleType, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    if implementation is ccfast.reference:
        use_references(monkeypatch)
    method = re.sub(r"_\d+$", "", path.stem)
    assert method in CALLS, f"{path}: expected a file of one of {', '.join(CALLS)}"
    CALLS[method](Golden(path, backend, implementation))


def test_there_are_files_and_each_method_has_one() -> None:
    assert FILES, f"no golden files in {FOLDER}"
    if "CCFAST_METHOD_GOLDENS" not in os.environ:
        assert {re.sub(r"_\d+$", "", path.stem) for path in FILES} == set(CALLS)
