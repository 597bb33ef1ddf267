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

#: The methods that have a name. A method of one's own is named as they are found: "module:Class".
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
    """The class that ``--method name`` means.

    Args:
        name: one of :data:`METHODS`, or ``"module:Class"``; the module is looked for among the installed packages and
            in the current folder.

    Raises:
        InputError: an unknown name; the module is not found or cannot be imported; it has no such class, or the class
            is not a whole :class:`ccfast.methods.Method`.
    """
    module_name, colon, class_name = METHODS.get(name, name).partition(":")
    if not (colon and module_name and class_name):
        raise InputError(
            f"--method: expected one of {', '.join(METHODS)}, or module:Class for one of your own, got {name[:200]!r}"
        )
    module = _imported(module_name, name)
    found = getattr(module, class_name, None)
    if found is None:
        raise InputError(f"--method {name}: {module_name} has no class {class_name}{_instead(module)}")
    return _checked(found, name)


def defaults_of(method: type[Method]) -> dict[str, Any]:
    """The options that ``method`` takes where nothing else is said: those of its class go before its base's."""
    found: dict[str, Any] = {"memory": next(iter(method.memories), None)}
    for base in reversed(method.__mro__):
        found |= vars(base).get("defaults", {})
    return found


def _imported(module_name: str, name: str) -> ModuleType:
    folder = os.getcwd()
    if not {"", folder} & set(sys.path):
        sys.path.append(folder)  # last: a file there must not stand in for an installed package
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise InputError(f"--method {name}: {module_name} cannot be imported: {error}") from error
        raise InputError(
            f"--method {name}: there is no module {error.name!r} in {folder} or among the installed packages"
        ) from error
    except (Exception, SystemExit) as error:  # whatever the module does when it is imported
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
            f"--method {name}: {found.__name__} defines {kept[0]} alone; a run that is resumed needs state_dict and "
            "load_state_dict"
        )
    return found
