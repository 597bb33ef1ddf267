"""``python -m ccfast.compat SCRIPT ARGS...``: runs a script that descends from the authors' code on these functions."""

from __future__ import annotations

import argparse
import io
import os
import sys
from importlib.machinery import SourceFileLoader
from types import ModuleType

from ccfast.compat.replacements import MODULES, install

_DESCRIPTION = """Run SCRIPT as "python SCRIPT ARGS..." does. When it imports the modules of its repository, their
functions and classes are replaced by those of ccfast.compat; each replacement is printed. A definition with unknown
arguments is kept, and printed too."""


def main(arguments: list[str]) -> None:
    """Run the script in ``arguments``; end with the script's exit status."""
    parser = argparse.ArgumentParser(prog="python -m ccfast.compat", description=_DESCRIPTION)
    parser.add_argument(
        "--keep",
        action="append",
        default=[],
        choices=sorted(MODULES),
        metavar="NAME",
        help=f"keep the script's own NAME; may be given several times; one of {', '.join(sorted(MODULES))}",
    )
    parser.add_argument("script", metavar="SCRIPT", help="the Python file")
    parser.add_argument("arguments", metavar="ARGS", nargs=argparse.REMAINDER, help="its arguments")
    options = parser.parse_args(arguments)
    if not os.path.isfile(options.script):
        parser.error(f"SCRIPT: expected a Python file, got {options.script!r}")
    install(options.keep)
    run_as_main(options.script, options.arguments)


def run_as_main(script: str, arguments: list[str]) -> None:
    """Run ``script`` like the interpreter, with the module, path and arguments of ``python SCRIPT ARGS...``."""
    path = os.path.abspath(script)
    sys.argv = [script, *arguments]
    if not getattr(sys.flags, "safe_path", False):  # with safe_path, neither -m nor a script adds its folder
        sys.path[0] = os.path.dirname(os.path.realpath(path))
    module = ModuleType("__main__")
    loader = SourceFileLoader("__main__", path)
    vars(module).update(__file__=path, __builtins__=__builtins__, __loader__=loader, __cached__=None)
    sys.modules["__main__"] = module
    with io.open_code(path) as file:
        code = compile(file.read(), path, "exec", dont_inherit=True)
    exec(code, vars(module))
