"""The README's examples run, and its commands are those that CI runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_python_examples_run_one_after_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    namespace: dict[str, Any] = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), namespace)
    assert capsys.readouterr().out.splitlines() == ["20 clusters, 0 rows of noise", "mAP 1.000, rank-1 1.000"]


def test_the_new_import_of_the_authors_scripts_works() -> None:
    added = re.findall(r"^\+(.*)$", blocks("diff")[0], re.MULTILINE)
    assert added
    exec("\n".join(added), {})


def test_commands_exist() -> None:
    from ccfast.cli import _parser

    lines = [line for block in blocks("bash") for line in block.splitlines()]
    parsed = [line.partition("ccfast ")[2] for line in lines if "ccfast " in line]
    inline = re.findall(r"`ccfast ([^`]*)`", README)
    wanted = [command for command in [*parsed, *inline] if "--help" not in command]
    assert len(wanted) >= 5
    for command in wanted:
        _parser().parse_args(command.split())


def test_linked_files_exist() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    files = [link for link in links if not link.startswith("http")]
    assert files
    for file in files:
        assert (ROOT / file).exists(), file
