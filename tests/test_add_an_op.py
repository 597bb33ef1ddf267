"""docs/add_an_op.md: its commands create an op that builds and passes its tests, and its quotes exist."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Backend

import ccfast

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from build_support import new_op  # noqa: E402

PAGE = (ROOT / "docs" / "add_an_op.md").read_text(encoding="utf-8")
FAMILIES = sorted(path.name for path in (ROOT / "csrc").iterdir() if path.is_dir() and path.name != "common")
FAMILY, FUNCTION = "whitening", "whiten_rows"

#: Compiles the files of the new op as one unit, loads it, and runs the given tests.
RUN = """
import sys
from pathlib import Path
import pytest, torch
from torch.utils.cpp_extension import load
unit, emulation, *tests = sys.argv[1:]
flags = ["-O0", "-g0", "-ffp-contract=off", *(["-DCCFAST_EMULATE"] if emulation else [])]
include = [str(Path("csrc/common").resolve()), *([emulation] if emulation else [])]
load("new_op", [unit], extra_cflags=flags, extra_include_paths=include, build_directory=".", is_python_module=False)
sys.exit(pytest.main(["-p", "no:cacheprovider", *tests]))
"""


def copied_tree(folder: Path) -> Path:
    """The part of the tree that the page's commands touch, with the built extension."""
    for name in ("ccfast", "csrc", "build_support", "benchmarks", "docs/api", "tests"):
        ignored = shutil.ignore_patterns("*.so", "__pycache__", "golden", "ptx", "results")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for extension in Path(ccfast.__file__).parent.glob("_C*.so"):
        (folder / "ccfast" / extension.name).symlink_to(extension)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def unit_of_the_new_op(tree: Path, emulated: bool) -> str:
    """One source file with everything that the op adds to the extension, and what it calls there."""
    schema = re.search(rf'm\.def\("{FUNCTION}\(.*\n', (tree / "csrc" / "bindings.cpp").read_text())
    kind, kernel = ("cuda", "cu") if emulated else ("cpu", "cpp")
    own = [f"{FAMILY}_op_{kind}.cpp", f"{FAMILY}_{kind}.{kernel}"]
    files = [tree / "csrc" / FAMILY / name for name in own]
    files += [tree / "csrc" / "common" / name for name in ("checks.cpp", "parallel.cpp")]
    files += sorted((tree / "tests" / "emulation").glob("cuda_emulation_*.cpp")) if emulated else []
    lines = ["#include <torch/library.h>", f"TORCH_LIBRARY_FRAGMENT(ccfast, m) {{ {schema[0]} }}"]
    lines += [f'#include "{path}"' for path in files]
    return "\n".join(lines) + "\n"


@pytest.mark.slow
def test_the_new_op_builds_and_passes_its_tests(backend: Backend, tmp_path: Path) -> None:
    if backend.name == "cuda":
        pytest.skip("the kernel is compiled for the host")
    command = re.search(r"^python -m build_support\.new_op .*$", PAGE, re.MULTILINE)[0]
    assert command.split()[-2:] == [FAMILY, FUNCTION]
    tree = copied_tree(tmp_path / "tree")
    environment = {**os.environ, "PYTHONPATH": str(tree), "MAX_JOBS": "1"}
    subprocess.run([sys.executable, *command.split()[1:]], cwd=tree, env=environment, check=True, capture_output=True)

    emulated = backend.name == "emulated"
    (tree / "unit.cpp").write_text(unit_of_the_new_op(tree, emulated))
    tests = [f"tests/test_{FAMILY}.py", "tests/test_opcheck.py", "tests/test_check.py", "tests/test_names.py"]
    emulation = str(tree / "tests" / "emulation") if emulated else ""
    arguments = ["unit.cpp", emulation, *tests, "-k", f"{FAMILY} or {FUNCTION}"]
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments], cwd=tree, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 12


def test_every_list_has_the_new_op(tmp_path: Path) -> None:
    tree = copied_tree(tmp_path / "tree")
    changed = new_op.add_op(tree, FAMILY, FUNCTION)
    for path in changed:
        text = (tree / path).read_text()
        assert FUNCTION in text and "scale_rows" not in text and "scaling" not in str(path)
    names = (tree / "ccfast" / "_public.py").read_text()
    assert f"from ccfast.ops.{FAMILY} import {FUNCTION}\n" in names and f'    "{FUNCTION}",\n' in names
    with pytest.raises(SystemExit, match=f"{FAMILY}: expected a name that is free"):
        new_op.add_op(tree, FAMILY, "whiten_more")


def test_the_page_lists_the_files_of_the_template() -> None:
    table = PAGE.partition("## The layers")[2].partition("\n\nBuilds")[0]
    assert sorted(re.findall(r"^\|[^|]+\| `([^`]+)` \|", table, re.MULTILINE)) == sorted(
        map(str, new_op.template_files())
    )


@pytest.mark.parametrize("block", re.findall(r"^```(?:cpp|python)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
def test_what_the_page_quotes_is_in_the_template(block: str) -> None:
    first, _, quoted = block.partition("\n")
    path = first.lstrip("/# ")
    source = new_op.SCHEMA if path == "csrc/bindings.cpp" else (new_op.TEMPLATE / path).read_text(encoding="utf-8")
    assert quoted.strip("\n") and quoted.strip("\n") in source


@pytest.mark.parametrize("family", FAMILIES)
def test_every_op_has_a_file_on_every_floor(family: str) -> None:
    """Exceptions: arguments.h, if the two devices share no checks, and the families of ``ccfast check``; a family
    may have several CUDA files with other names."""
    layers = [path for path in new_op.template_files() if path.stem != "arguments" and path.parent.name != "check"]
    names = [str(path).replace("scaling", family).replace(f"/{family}_cuda.cu", "/*_cuda.cu") for path in layers]
    missing = [name for name in names if not list(ROOT.glob(name))]
    assert not missing


def test_a_page_of_this_length_is_read() -> None:
    assert len(PAGE.splitlines()) <= 150
