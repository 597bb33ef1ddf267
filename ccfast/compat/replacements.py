"""Replaces functions and classes in a script's modules by those of this package, when they are imported."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Collection
from importlib.abc import FileLoader, Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from ccfast import compat
from ccfast.compat.forms import FORMS, METHODS, Form

#: The last parts of the names of modules that define each name, in the code that descends from the authors'.
MODULES: dict[str, tuple[str, ...]] = {
    "ClusterMemory": ("cm",),
    "RandomMultipleGallerySampler": ("sampler",),
    "RandomMultipleGallerySamplerNoCam": ("sampler",),
    "cluster_by_infomap": ("infomap_cluster",),
    "cm": ("cm",),
    "cm_hard": ("cm",),
    "cmc": ("ranking", "evaluator"),
    "compute_jaccard_distance": ("faiss_rerank", "compute_dist", "utils"),
    "compute_ranked_list": ("faiss_rerank",),
    "evaluate_all": ("evaluators", "evaluators_cos", "evaluator"),
    "get_dist_nbr": ("infomap_cluster",),
    "mean_ap": ("ranking", "evaluator"),
    "pairwise_distance": ("evaluators", "evaluators_cos", "evaluator", "faiss_rerank"),
    "re_ranking": ("rerank", "rerank2", "reranking"),
    "search_raw_array_pytorch": ("faiss_utils", "utils"),
}


class ReplacingFinder(MetaPathFinder):
    """Finds modules in the usual way; after a module in :data:`MODULES` has run, replaces its definitions."""

    def __init__(self, keep: Collection[str] = ()) -> None:
        self.names = [name for name in MODULES if name not in keep]

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """The spec of a module whose definitions are replaced, or None."""
        last = fullname.rpartition(".")[2]
        names = [name for name in self.names if last in MODULES[name]]
        if not names or fullname.partition(".")[0] == "ccfast":
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next((spec for finder in others if (spec := finder.find_spec(fullname, path, target))), None)
        if spec is not None and isinstance(spec.loader, FileLoader):
            run = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                run(module)
                for name in names:
                    replace(module, name)

            vars(spec.loader)["exec_module"] = exec_module
        return spec


def replace(module: ModuleType, name: str) -> None:
    """Replace the ``name`` that ``module`` defines by ours and print it, or print why not."""
    theirs = module.__dict__.get(name)
    if theirs is None or getattr(theirs, "__module__", None) != module.__name__:
        return  # missing, or imported from another module
    full_name = f"{module.__name__}.{name}"
    ours = _class_like(name, theirs) if name in METHODS else _function_like(name, theirs)
    if ours is None:
        _say(f"left alone {full_name}: its arguments {_shown(name, theirs)} are not a known form")
        return
    setattr(module, name, ours)
    _say(f"replaced {full_name}")


def _say(message: str) -> None:
    print(f"ccfast.compat: {message}", flush=True)


def _parameters(function: Any) -> list[inspect.Parameter] | None:
    """The parameters without annotations, if all can be given by position and by name; None otherwise."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    parameters = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in found]
    plain = all(parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for parameter in parameters)
    return parameters if plain else None


def _shown(name: str, theirs: Any) -> str:
    """Their arguments, for the message."""
    methods = METHODS.get(name)
    try:
        if methods is None or not inspect.isclass(theirs):
            return str(inspect.signature(theirs))
        shown = (
            f"{method}{inspect.signature(getattr(theirs, method))}" for method in methods if hasattr(theirs, method)
        )
        return ", ".join(shown)
    except (TypeError, ValueError):
        return repr(theirs)


def _function_like(name: str, theirs: Any) -> Callable[..., Any] | None:
    """Our function with the parameters and defaults of theirs, or None if its form is unknown."""
    parameters = None if inspect.isclass(theirs) else _parameters(theirs)
    if parameters is None:
        return None
    names = [parameter.name for parameter in parameters]
    form = next((form for form in FORMS[name] if list(form.ours) == names), None)
    if form is None:
        return None
    ours = getattr(compat, name)
    return ours if parameters == _parameters(ours) else _adapted(ours, form, inspect.signature(theirs))


def _adapted(ours: Callable[..., Any], form: Form, signature: inspect.Signature) -> Callable[..., Any]:
    @functools.wraps(ours)
    def call(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return ours(**form.arguments(bound.arguments))

    vars(call)["__signature__"] = signature
    return call


def _class_like(name: str, theirs: Any) -> type | None:
    """Our class with the defaults of theirs, or None if its methods have other parameters."""
    if not inspect.isclass(theirs):
        return None
    for method, names in METHODS[name].items():
        parameters = _parameters(getattr(theirs, method, None))
        if parameters is None or [parameter.name for parameter in parameters] != names:
            return None
    ours: Any = getattr(compat, name)
    if _parameters(theirs.__init__) == _parameters(ours.__init__):
        return ours
    signature = inspect.signature(theirs.__init__)

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        ours.__init__(*bound.args)

    # It has the module and name of theirs, so that its objects can be pickled.
    return type(name, (ours,), {"__init__": __init__, "__module__": theirs.__module__, "__doc__": ours.__doc__})


class FaissStandIn(MetaPathFinder, Loader):
    """An empty module ``faiss``, so that ``import faiss`` works in modules whose searches are replaced.

    It is the last finder that Python asks.
    """

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """The spec of ``faiss``, if no other finder has found it."""
        return ModuleSpec(fullname, self) if fullname == "faiss" else None

    def exec_module(self, module: ModuleType) -> None:
        """Give it the constants that signatures use; every other name is an error that says what to install."""
        _say("faiss is not installed; the replaced searches do not need it")
        vars(module).update(METRIC_INNER_PRODUCT=0, METRIC_L2=1)

        def missing(name: str) -> Any:
            if not name.startswith("__"):
                raise AttributeError(f"faiss is not installed, and faiss.{name} is not replaced: pip install faiss-cpu")
            raise AttributeError(name)

        vars(module)["__getattr__"] = missing


def install(keep: Collection[str] = ()) -> None:
    """Replace definitions in all modules that are imported from now on, except the names in ``keep``."""
    sys.meta_path.insert(0, ReplacingFinder(keep))
    sys.meta_path.append(FaissStandIn())
