"""Recipes: the default options of each data set."""

from __future__ import annotations

from typing import Any

from ccfast._errors import InputError

Recipe = dict[str, Any]

#: The recipe of the paper on Market-1501 (Dai et al. 2021, section 4.2, and the authors' scripts).
PAPER: Recipe = {
    "arch": "resnet50",
    "weights": "imagenet",
    "pooling": "gem",
    "height": 256,
    "width": 128,
    "eps": 0.6,
    "k1": 30,
    "epochs": 50,
    "iters": 200,
    "batch_size": 256,
    "num_instances": 16,
    "lr": 3.5e-4,
    "eval_every": 10,
    "workers": 4,
}

#: Drawings of a few pixels, trained from scratch in minutes on two cores.
DRAWINGS: Recipe = {
    "arch": "smallconv",
    "weights": "none",
    "pooling": "average",
    "eps": 0.6,
    "k1": 20,
    "iters": 40,
    "batch_size": 64,
    "num_instances": 4,
    "lr": 2e-3,
    "eval_every": 1,
    "workers": 0,
}

#: The user's own images.
OWN: Recipe = {**PAPER, "height": 224, "width": 224, "iters": 100, "batch_size": 64, "num_instances": 4}

RECIPES: dict[str, Recipe] = {
    "digits": {**DRAWINGS, "height": 8, "width": 8, "epochs": 15},
    "omniglot": {**DRAWINGS, "height": 32, "width": 32, "eps": 0.45, "epochs": 8, "iters": 100, "batch_size": 256},
    "market1501": PAPER,
    "dukemtmcreid": PAPER,
    "msmt17": {**PAPER, "iters": 400},
    "personx": PAPER,
    "veri776": {**PAPER, "iters": 400, "height": 224, "width": 224},
    "sysumm01": {**PAPER, "height": 288, "width": 144},
    "ltcc": {**PAPER, "height": 384, "width": 192},
    "folder": OWN,
    "csv": OWN,
}

#: k1 of the published InfoMap recipe, on every data set.
INFOMAP_K1 = 15

#: The value that lets ccfast choose, such as ``--eps`` from each epoch's features.
AUTO = "auto"

#: Data sets that need no folder of images, and the one of a run that names none.
BUILT_IN = ("digits",)
DEFAULT = "digits"

#: The data sets with published results, with one preset per clustering.
_WITH_RESULTS = ("market1501", "dukemtmcreid", "msmt17", "personx", "veri776")

_CAP = {"batch_size": 32, "num_instances": 4, "eps": 0.5, "k1": 20, "warmup": 10}
_SPCL = {"batch_size": 64, "num_instances": 4, "iters": 400}
_HHCL = {"pooling": "average", "epochs": 60}

#: Differences of other methods' papers from the published recipe, by method and data set.
_OF_METHODS: dict[str, dict[str, Recipe]] = {
    "hhcl": {"market1501": {**_HHCL, "eps": 0.45}, "dukemtmcreid": {**_HHCL, "eps": 0.6}},
    "spcl": {"market1501": _SPCL, "dukemtmcreid": _SPCL, "msmt17": {**_SPCL, "iters": 800}},
    "cap": {name: _CAP for name in ("market1501", "dukemtmcreid", "msmt17")},
    "o2cap": {name: {**_CAP, "iters": 400} for name in ("market1501", "dukemtmcreid", "msmt17")},
    "3c": {name: {} for name in ("market1501", "msmt17")},
}

#: The preset for a few thousand images or fewer, on any data set.
SMALL = "small"

_SMALL: Recipe = {"eps": 0.45, "k1": 20, "batch_size": 256, "schedule": "cosine", "cache": "ram", "eval_every": 1}

#: What :data:`SMALL` adds for an encoder with pretrained weights, and for one with random weights.
FROM_LEARNT: Recipe = {"lr": 1e-4, "freeze_bn": True, "num_instances": 16, "epochs": 2, "iters": 15}
FROM_RANDOM: Recipe = {"lr": 2e-3, "freeze_bn": False, "num_instances": 4, "epochs": 5, "iters": 40}

#: Names of recipes: options that override the data set's recipe.
PRESETS: dict[str, Recipe] = {
    SMALL: _SMALL,
    **{name: {"dataset": name} for name in _WITH_RESULTS},
    **{f"{name}-infomap": {"dataset": name, "cluster": "infomap"} for name in _WITH_RESULTS},
    **{
        f"{method}-{name}": {"dataset": name, "method": method, **recipe}
        for method, recipes in _OF_METHODS.items()
        for name, recipe in recipes.items()
    },
}


def preset_options(name: str, given: Recipe) -> Recipe:
    """The options of the preset ``name`` for a run whose other options are ``given``.

    Those of :data:`SMALL` depend on the initial weights: pretrained ones (``weights`` other than "none", which
    may come from the data set's recipe, or ``init``), or random ones.

    Raises:
        InputError: no such preset.
    """
    if name not in PRESETS:
        raise InputError(f"--preset: expected one of {', '.join(PRESETS)}, got {name!r}")
    if name != SMALL:
        return PRESETS[name]
    recipe = RECIPES.get(str(given.get("dataset", DEFAULT)), {})
    learnt = given.get("init") is not None or given.get("weights", recipe.get("weights")) != "none"
    return {**PRESETS[SMALL], **(FROM_LEARNT if learnt else FROM_RANDOM)}
