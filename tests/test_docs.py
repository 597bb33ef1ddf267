"""The documentation: its examples run, its commands exist, and it covers all pages and public names."""

from __future__ import annotations

import doctest
import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest

import ccfast
from ccfast import compat, data, methods, nn, training
from ccfast.cli import _parser

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
MODULES = {"ccfast": ccfast, "ccfast.nn": nn, "ccfast.training": training}
PUBLIC = [
    f"{module}.{name}"
    for module, found in MODULES.items()
    for name in found.__all__
    if not inspect.ismodule(getattr(found, name)) and name != "TrainResult"  # train's example has one
] + ["ccfast.data.load_data", "ccfast.methods.Method"]


def public(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr({**MODULES, "ccfast.data": data, "ccfast.methods": methods}[module], attribute)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_an_example_that_runs(name):
    if name == "ccfast.infomap":
        pytest.importorskip("infomap")
    examples = doctest.DocTestFinder(recurse=False).find(public(name), name)
    assert len(examples) == 1 and examples[0].examples, f"{name}: its docstring has no example (>>>)"
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(examples[0])
    assert result.failed == 0


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_in_the_reference(name):
    pages = "".join(page.read_text(encoding="utf-8") for page in (DOCS / "api").glob("*.md"))
    assert re.search(rf"^::: {re.escape(name)}$", pages, re.MULTILINE)


def test_the_authors_names_are_in_the_reference_as_a_module():
    assert "::: ccfast.compat\n" in (DOCS / "api" / "compat.md").read_text(encoding="utf-8")
    assert compat.__doc__


@pytest.mark.parametrize("page", ["index.md", "methods.md", "neighbours.md", "reuse-kernels.md"])
def test_python_examples_of_a_page_run_one_after_the_other(page):
    namespace: dict[str, Any] = {}
    blocks = re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), namespace)


def test_the_tracker_of_the_page_about_encoders_runs(tmp_path, monkeypatch, capsys):
    """The two objects keep their tracks; the second appears in the fourth frame."""
    pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError))
    from tiny_run import tiny_run

    monkeypatch.chdir(tmp_path)
    tiny_run(tmp_path, run="runs/mine")
    (block,) = re.findall(r"^```python\n(.*?)^```$", (DOCS / "use.md").read_text(encoding="utf-8"), re.M | re.S)
    namespace: dict[str, Any] = {}
    exec(compile(block, "use.md", "exec"), namespace)
    assert capsys.readouterr().out.splitlines() == ["[0]"] * 3 + ["[0, 1]"] * 5
    assert namespace["tracks"].shape == (2, namespace["encoder"].num_features)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_commands_and_their_options_exist(page):
    """The command line accepts the commands of each page, including placeholders."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [
        line
        for block in re.findall(r"^```(?:bash)?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    ]
    for line in lines:
        command = line.partition("#")[0].strip()
        if command.startswith("ccfast ") and "--help" not in command and "..." not in command and "[" not in command:
            _parser().parse_args(command.replace("NAME", "digits").split()[1:])


def test_every_page_is_in_the_navigation():
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    listed = re.findall(r": (\S+\.md)$", nav, re.MULTILINE)
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in PAGES)


@pytest.mark.slow
def test_the_notebook_runs(capsys):
    """Runs every cell in order; the notebook asserts that the encoder has learnt."""
    notebook = json.loads((ROOT / "examples" / "digits.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert cells and not any(cell["outputs"] for cell in cells)
    namespace: dict[str, Any] = {}
    for number, cell in enumerate(cells):
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), namespace)
    printed = capsys.readouterr().out
    assert "before: mAP" in printed and "with k-reciprocal re-ranking: mAP" in printed
