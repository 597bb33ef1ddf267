"""``python -m ccfast.compat SCRIPT ARGS...``: a script of the authors' family, unedited, on these functions."""

from __future__ import annotations

import argparse
import io
import os
import sys
from importlib.machinery import SourceFileLoader
from types import ModuleType

from ccfast.compat.replacements import MODULES, install

_DESCRIPTION = """Run SCRIPT as "python SCRIPT ARGS..." does. As it imports the modules of its repository, functions and
classes that ccfast.compat has are replaced by it; each replacement is printed. A definition with other arguments than
those that are known is left alone, and named."""


def main(arguments: list[str]) -> None:
    """Run the script that ``arguments`` name; ends with the script's exit status."""
    parser = argparse.ArgumentParser(prog="python -m ccfast.compat", description=_DESCRIPTION)
    parser.add_argument(
        "--keep",
        action="append",
        default=[],
        choices=sorted(MODULES),
        metavar="NAME",
        help=f"leave the script's own NAME as it is; may be given several times; one of {', '.join(sorted(MODULES))}",
    )
    parser.add_argument("script", metavar="SCRIPT", help="the Python file")
    parser.add_argument("arguments", metavar="ARGS", nargs=argparse.REMAINDER, help="its arguments")
    options = parser.parse_args(arguments)
    if not os.path.isfile(options.script):
        parser.error(f"SCRIPT: expected a Python file, got {options.script!r}")
    install(options.keep)
    run_as_main(options.script, options.arguments)


def run_as_main(script: str, arguments: list[str]) -> None:
    """Run ``script`` as the interpreter would: module, path and arguments are those of ``python SCRIPT ARGS...``."""
    path = os.path.abspath(script)
    sys.argv = [script, *arguments]
    if not getattr(sys.flags, "safe_path", False):  # then neither -m nor a script has put its folder there
        sys.path[0] = os.path.dirname(os.path.realpath(path))
    module = ModuleType("__main__")
    loader = SourceFileLoader("__main__", path)
    vars(module).update(__file__=path, __builtins__=__builtins__, __loader__=loader, __cached__=None)
    sys.modules["__main__"] = module
    with io.open_code(path) as file:
        code = compile(file.read(), path, "exec", dont_inherit=True)
    exec(code, vars(module))
