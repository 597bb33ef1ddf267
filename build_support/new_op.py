"""Makes the files of a new op from the template in tests/template_op, and adds it to the lists of all ops.

    python -m build_support.new_op whitening whiten_rows

makes an op ``ccfast.whiten_rows`` with a file ``whitening`` in every layer. It builds and passes its tests without
changes, because it still computes the same as the template. See docs/add_an_op.md.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.resolve()
TEMPLATE = ROOT / "tests" / "template_op"
FAMILY, FUNCTION = "scaling", "scale_rows"
#: Not a file of its own: its function goes into the file of the same name.
ARGUMENTS = Path("ccfast/_arguments.py")

SCHEMA = f'  m.def("{FUNCTION}(Tensor features, Tensor factors) -> Tensor");\n'
CHECKED = (
    f'    "{FUNCTION}": [lambda: (FEATURES, torch.rand(40)), lambda: (FEATURES.double(), torch.rand(40).double())],\n'
)
DOCUMENTED = f"\n::: ccfast.{FUNCTION}\n    options: {{heading_level: 3}}\n"


def template_files() -> list[Path]:
    """The files of the template, relative to it and to the root of the tree that they go to."""
    files = (path for path in TEMPLATE.rglob("*.*") if path.is_file() and "__pycache__" not in path.parts)
    return sorted(path.relative_to(TEMPLATE) for path in files)


def add_op(root: Path, family: str, function: str) -> list[Path]:
    """Adds the op to the tree at ``root``; all files that are new or have changed, relative to it."""

    def named(text: str) -> str:
        return text.replace(FUNCTION, function).replace(FAMILY, family)

    made = {path: root / named(str(path)) for path in template_files() if path != ARGUMENTS}
    taken = [path for path in (root / "csrc" / family, *made.values()) if path.exists()]
    if taken:
        raise SystemExit(f"{family}: expected a name that is free, got one that {taken[0].relative_to(root)} has")
    for source, target in made.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(named((TEMPLATE / source).read_text()))
    checks = (TEMPLATE / ARGUMENTS).read_text()
    imported, listed = named(f"from ccfast.{{}}.{FAMILY} import {FUNCTION}\n"), named(f'    "{FUNCTION}",\n')
    insertions = [
        (ARGUMENTS, r"\Z", "\n\n" + named(checks[checks.index("def ") :])),
        ("csrc/bindings.cpp", r"^\}$", named(SCHEMA)),
        ("ccfast/_public.py", r"^from ccfast\.ops\.similarity ", imported.format("ops")),
        ("ccfast/_public.py", r"^\]$", listed),
        ("ccfast/reference/__init__.py", r"^from ccfast\.reference\.sets ", imported.format("reference")),
        ("ccfast/reference/__init__.py", r"^\]$", listed),
        ("tests/test_opcheck.py", r"^\}\nFLAT", named(CHECKED)),
        ("docs/api/ops.md", r"\Z", named(DOCUMENTED)),
    ]
    for name, anchor, text in insertions:
        _insert(root / name, anchor, text)
    return [*(path.relative_to(root) for path in made.values()), *dict.fromkeys(Path(name) for name, *_ in insertions)]


def _insert(path: Path, anchor: str, text: str) -> None:
    """``text`` in front of the first match of ``anchor``."""
    before = path.read_text()
    found = re.search(anchor, before, re.MULTILINE)
    if found is None:
        raise SystemExit(f"{path}: expected a line that matches {anchor}, got none")
    path.write_text(before[: found.start()] + text + before[found.start() :])


def _identifier(text: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", text):
        raise argparse.ArgumentTypeError(f"expected small letters, digits and underscores, got {text!r}")
    return text


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", type=_identifier, help="the name of its files, such as whitening")
    parser.add_argument("function", type=_identifier, help="the name of its public function, such as whiten_rows")
    given = parser.parse_args()
    for path in add_op(ROOT, given.family, given.function):
        print(path)
    print("\nThe public names are listed in order of the alphabet: ruff check --fix . && ruff format .")


if __name__ == "__main__":
    main()
