"""The arguments of these functions in code that descends from the authors', and their mapping to ours."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

_KIND = inspect.Parameter.POSITIONAL_OR_KEYWORD


def _anything(arguments: Mapping[str, Any]) -> bool:
    return True


@dataclass(frozen=True)
class Form:
    """One list of parameters of a function.

    Attributes:
        ours: their parameter names, in order, each with its name in ccfast.
        implied: values of our arguments that the form does not have, or may leave out.
        fits: whether arguments (by our names) are plausible, if positions alone can mean several forms.
    """

    ours: dict[str, str]
    implied: dict[str, Any] = field(default_factory=dict)
    fits: Callable[[Mapping[str, Any]], bool] = _anything

    def arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The ``given`` arguments, renamed from their names to ours."""
        return self.implied | {self.ours[name]: value for name, value in given.items()}


def _form(text: str, fits: Callable[[Mapping[str, Any]], bool] = _anything, **implied: Any) -> Form:
    """``"features=target_features k1"``: their ``features`` is our ``target_features``, and ``k1`` is the same."""
    pairs = [part.split("=") for part in text.split()]
    return Form({pair[0]: pair[-1] for pair in pairs}, implied, fits)


def _flag_is_no_number(arguments: Mapping[str, Any]) -> bool:
    """OpenUnReID has ``search_option`` where the authors have ``print_flag``."""
    return isinstance(arguments.get("print_flag", True), bool)


def _distances_are_a_matrix(arguments: Mapping[str, Any]) -> bool:
    """TMGF begins with the distances, the authors begin with features that they do not use."""
    return hasattr(arguments.get("distmat"), "shape")


_RANKED = "distmat query_ids gallery_ids query_cams gallery_cams"
_RANKED_BY_PID = "distmat query_pids=query_ids test_pids=gallery_ids query_cams test_cams=gallery_cams"
_CMC = f"{_RANKED} topk separate_camera_set single_gallery_shot first_match_break"
_LISTS = "distmat query gallery query_ids gallery_ids query_cams gallery_cams cmc_topk cmc_flag"
_EVALUATE = f"query_features gallery_features {_LISTS}"

#: The forms of every function, the authors' form first.
FORMS: dict[str, tuple[Form, ...]] = {
    "cluster_by_infomap": (_form("nbrs dists min_sim cluster_num"),),
    "cm": (_form("inputs indexes features momentum"),),
    "cm_hard": (_form("inputs indexes features momentum"),),
    "cmc": (
        _form(_CMC),
        _form(f"{_CMC} regdb"),
        _form(f"{_RANKED_BY_PID} topk", topk=20, first_match_break=True),
    ),
    "compute_jaccard_distance": (
        _form("target_features k1 k2 print_flag search_option use_float16", _flag_is_no_number),
        _form("features=target_features k1 k2 search_option fp16=use_float16 verbose=print_flag"),
    ),
    "compute_ranked_list": (_form("features k search_option fp16 verbose"),),
    "evaluate_all": (
        _form(_EVALUATE, _distances_are_a_matrix),
        _form(f"{_EVALUATE} regdb", _distances_are_a_matrix),
        _form(_LISTS, query_features=None, gallery_features=None),
    ),
    "get_dist_nbr": (_form("features k knn_method"),),
    "mean_ap": (_form(_RANKED), _form(f"{_RANKED} regdb"), _form(_RANKED_BY_PID)),
    "pairwise_distance": (_form("features query gallery"),),
    "re_ranking": (_form("q_g_dist q_q_dist g_g_dist k1 k2 lambda_value"),),
    "search_raw_array_pytorch": (_form("res xb xq k D I metric"),),
}

#: Of every class, the parameters of its methods that a script calls.
METHODS: dict[str, dict[str, list[str]]] = {
    "ClusterMemory": {
        "__init__": ["self", "num_features", "num_samples", "temp", "momentum", "use_hard"],
        "forward": ["self", "inputs", "targets"],
    },
    "RandomMultipleGallerySampler": {"__init__": ["self", "data_source", "num_instances"], "__iter__": ["self"]},
    "RandomMultipleGallerySamplerNoCam": {"__init__": ["self", "data_source", "num_instances"], "__iter__": ["self"]},
}


def takes_all_forms(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, which can be called in any form of :data:`FORMS`; the first form that fits is used.

    Its signature is the authors'; further arguments of other forms are accepted too.
    """
    forms = FORMS[function.__name__]
    ours = inspect.signature(function)
    signatures = [_signature(form, ours) for form in forms]

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        readings, misfits = [], []
        for form, signature in zip(forms, signatures, strict=True):
            try:
                readings.append((form, form.arguments(signature.bind(*args, **kwargs).arguments)))
            except TypeError as error:
                misfits.append(error)
        if not readings:
            raise TypeError(f"{function.__name__}: {misfits[0]}; expected {signatures[0]}")
        fitting = [arguments for form, arguments in readings if form.fits(arguments)]
        return function(**(fitting[0] if fitting else readings[0][1]))

    vars(call)["__signature__"] = signatures[0]
    return call


def _signature(form: Form, ours: inspect.Signature) -> inspect.Signature:
    parameters = [
        inspect.Parameter(their, _KIND, default=form.implied.get(our, ours.parameters[our].default))
        for their, our in form.ours.items()
    ]
    return inspect.Signature(parameters, return_annotation=ours.return_annotation)
