"""From the value of ``--method`` to a class."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ccfast._errors import InputError

if TYPE_CHECKING:
    from ccfast.methods.method import Method

#: The methods of ccfast by name. Other methods are given in the same form as the values here: "module:Class".
METHODS: dict[str, str] = {
    "cluster-contrast": "ccfast.methods.cluster_contrast:ClusterContrast",
    "hhcl": "ccfast.methods.hhcl:HHCL",
    "spcl": "ccfast.methods.spcl:SpCL",
    "cap": "ccfast.methods.cap:CAP",
    "o2cap": "ccfast.methods.o2cap:O2CAP",
    "3c": "ccfast.methods.three_c:ThreeC",
    "adca": "ccfast.methods.adca:ADCA",
    "pgm": "ccfast.methods.pgm:PGM",
}


def method_class(name: str) -> type[Method]:
    """The class of ``--method name``.

    Args:
        name: one of :data:`METHODS`, or ``"module:Class"``; the module is an installed package, or in the current
            folder.

    Raises:
        InputError: an unknown name; the module is not found or cannot be imported; it has no such class, or the class
            is not a complete :class:`ccfast.methods.Method`.
    """
    module_name, colon, class_name = METHODS.get(name, name).partition(":")
    if not (colon and module_name and class_name):
        raise InputError(
            f"--method: expected one of {', '.join(METHODS)}, or module:Class for your own, got {name[:200]!r}"
        )
    module = _imported(module_name, name)
    found = getattr(module, class_name, None)
    if found is None:
        raise InputError(f"--method {name}: {module_name} has no class {class_name}{_instead(module)}")
    return _checked(found, name)


def defaults_of(method: type[Method]) -> dict[str, Any]:
    """The defaults of ``method`` for options; those of its class override those of its base class."""
    found: dict[str, Any] = {"memory": next(iter(method.memories), None)}
    for base in reversed(method.__mro__):
        found |= vars(base).get("defaults", {})
    return found


def _imported(module_name: str, name: str) -> ModuleType:
    folder = os.getcwd()
    if not {"", folder} & set(sys.path):
        sys.path.append(folder)  # last: a file in the folder must not replace an installed package
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise InputError(f"--method {name}: {module_name} cannot be imported: {error}") from error
        raise InputError(
            f"--method {name}: no module {error.name!r} in {folder} or in the installed packages"
        ) from error
    except (Exception, SystemExit) as error:  # importing the module may do anything
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise InputError(
            f"--method {name}: {module_name} cannot be imported: {type(error).__name__}: {error} "
            f"({last.filename}, line {last.lineno})"
        ) from error


def _instead(module: ModuleType) -> str:
    from ccfast.methods.method import Method

    own = [
        key
        for key, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, Method) and value.__module__ == module.__name__
    ]
    return f"; it has {', '.join(own)}" if own else ""


def _checked(found: Any, name: str) -> type[Method]:
    from ccfast.methods.method import Method

    if not (inspect.isclass(found) and issubclass(found, Method)):
        what = f"the class {found.__name__}" if inspect.isclass(found) else f"a {type(found).__name__}"
        raise InputError(f"--method {name}: expected a class that inherits from ccfast.methods.Method, got {what}")
    missing = sorted(found.__abstractmethods__)
    if missing:
        raise InputError(f"--method {name}: {found.__name__} does not define {', '.join(missing)}")
    kept = [key for key in ("state_dict", "load_state_dict") if getattr(found, key) is not getattr(Method, key)]
    if len(kept) == 1:
        raise InputError(
            f"--method {name}: {found.__name__} defines only {kept[0]}; to resume a run it needs both state_dict and "
            "load_state_dict"
        )
    return found
