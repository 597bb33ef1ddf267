"""The scripts of examples/: each runs alone, is short, and learns."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parent.parent / "examples"
SCRIPTS = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != "digits")
#: Epochs after which the accuracy has clearly risen; the default is 2.
EPOCHS = {"cluster_contrast": 3, "own_method": 3, "swav": 3}


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_an_example_learns(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = importlib.import_module(name).main(epochs=EPOCHS.get(name, 2))
    assert after > before + 0.05
    printed = capsys.readouterr().out
    assert f"before: kNN accuracy {before:.1%}" in printed and f"after: kNN accuracy {after:.1%}" in printed
    assert torch.initial_seed() == 0, "seeded, so that it prints the same again"


@pytest.mark.parametrize("name", ["digits", *SCRIPTS])
def test_an_example_is_short(name: str) -> None:
    assert len((EXAMPLES / f"{name}.py").read_text(encoding="utf-8").splitlines()) <= 100


@pytest.mark.slow
def test_an_example_is_a_script() -> None:
    command = [sys.executable, EXAMPLES / "supcon.py", "--epochs", "1"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert re.fullmatch(r"before: kNN accuracy \S+%\nepoch 1: loss \S+\nafter: kNN accuracy \S+%\n", printed)
