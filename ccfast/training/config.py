"""All options of a training run: the one place for their defaults, their help and their checks."""

from __future__ import annotations

import dataclasses
import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml

from ccfast import _checks as checks
from ccfast._errors import InputError

#: What suits a data set. market1501 is the published recipe; digits is tuned for a minute on two cores.
RECIPES: dict[str, dict[str, Any]] = {
    "digits": {
        "arch": "smallconv",
        "weights": "none",
        "pooling": "average",
        "height": 8,
        "width": 8,
        "eps": 0.6,
        "k1": 20,
        "epochs": 15,
        "iters": 40,
        "batch_size": 64,
        "num_instances": 4,
        "lr": 2e-3,
        "eval_every": 1,
        "workers": 0,
    },
    "market1501": {
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
    },
}

#: k1 of the published InfoMap recipe, on every data set.
INFOMAP_K1 = 15

#: Where a run lives and how it talks: not part of what it computes, so not written to its config.yaml.
NOT_STORED = ("run", "resume", "quiet")

#: What may be said anew when a run is resumed.
FREE_ON_RESUME = (*NOT_STORED, "data_dir", "epochs", "eval_every", "device", "workers", "bad_images")


def option(text: str, default: Any = None, choices: tuple[str, ...] | None = None) -> Any:
    """A field of :class:`TrainConfig`; without a default it takes the data set's, see :data:`RECIPES`."""
    return field(default=default, metadata={"help": text, "choices": choices})


@dataclass
class ClusterOptions:
    """How pseudo-labels are found; what is left out is filled in from the published recipe."""

    cluster: str = option("how pseudo-labels are found", "dbscan", ("dbscan", "infomap"))
    eps: float = option("DBSCAN: largest Jaccard distance between neighbours, in [0, 1)")
    min_samples: int = option("DBSCAN: neighbours that make a core, itself included", 4)
    k1: int = option(f"neighbours in the k-reciprocal encoding (with infomap: in its graph, default {INFOMAP_K1})")
    k2: int = option("neighbours in its query expansion", 6)
    min_similarity: float = option("InfoMap: smallest cosine similarity of a link", 0.5)
    min_cluster_size: int = option("InfoMap: smaller clusters are noise", 5)

    def __post_init__(self) -> None:
        _check_choice(self, "cluster")
        recipe = self._recipe()
        if self.cluster == "infomap":
            recipe = {**recipe, "k1": INFOMAP_K1}
        for name in [item.name for item in dataclasses.fields(self)]:
            if getattr(self, name) is None and name in recipe:
                setattr(self, name, recipe[name])
            _check_choice(self, name)
            if name in _INTEGERS:
                _check(self, name, checks.integer, low=_INTEGERS[name], high=2**31 - 1)
            if name in _REALS:
                _check(self, name, checks.real, **_REALS[name])
        if self.cluster == "infomap" and importlib.util.find_spec("infomap") is None:
            raise InputError("--cluster infomap needs the package infomap: pip install 'ccfast[infomap]'")
        if self.k2 > self.k1 and self.cluster == "dbscan":
            raise InputError(f"--k2: expected at most --k1 ({self.k1}), got {self.k2}")

    def _recipe(self) -> dict[str, Any]:
        return RECIPES["market1501"]


@dataclass
class TrainConfig(ClusterOptions):
    """The options of ``ccfast train``; what is left out comes from the data set's recipe; then all is checked."""

    dataset: str = option("data set", "digits", tuple(RECIPES))
    data_dir: str | None = option("folder of the images in Market-1501's layout, directly or nested")
    arch: str = option("encoder: smallconv, resnet18, resnet50 (torchvision) or timm/NAME (any convolutional one)")
    weights: str = option("starting weights: none, imagenet, a torchvision weights name, or a file")
    pooling: str = option("from feature maps to vectors", choices=("gem", "average"))
    height: int = option("height of the encoder's input")
    width: int = option("width of the encoder's input")
    freeze_bn: bool = option("leave the backbone's BatchNorm statistics as they are while training", False)
    bn_group: int = option("images a BatchNorm layer normalises together while training; 0: the whole batch", 64)

    epochs: int = option("epochs; each clusters anew")
    iters: int = option("iterations an epoch")
    batch_size: int = option("images a batch: clusters x instances")
    num_instances: int = option("instances of a cluster in a batch; must divide the batch size")
    lr: float = option("Adam's learning rate")
    weight_decay: float = option("Adam's weight decay", 5e-4)
    step_size: int = option("epochs after which the learning rate falls to a tenth", 20)
    temperature: float = option("temperature of the contrastive loss", 0.05)
    momentum: float = option("how much of a memory row stays at an update, in [0, 1]", 0.1)
    memory: str = option("how the memory is updated", "sequential", ("sequential", "hardest", "mean"))

    eval_every: int = option("epochs between evaluations; the last epoch is always evaluated")
    device: str | None = option("cpu or cuda (default: cuda where there is one)")
    workers: int = option("processes that load images; 0: none beside this one")
    seed: int = option("seed of everything random; on the CPU the same seed gives the same run", 0)
    bad_images: str = option("images that cannot be read: stop, or leave them out", "refuse", ("refuse", "skip"))

    run: str | None = option("run folder (default: runs/<dataset>-<time>)")
    resume: bool = option("go on with the run in the folder that --run names", False)
    quiet: bool = option("print warnings and errors only", False)

    def __post_init__(self) -> None:
        _check_choice(self, "dataset")
        super().__post_init__()
        if self.batch_size % self.num_instances or self.batch_size < 2 * self.num_instances:
            raise InputError(
                f"--batch-size: expected a multiple of --num-instances ({self.num_instances}), "
                f"at least twice as large, got {self.batch_size}"
            )
        if self.dataset == "digits" and (self.height, self.width) != (8, 8):
            raise InputError(f"--height, --width: digits are 8 x 8, got {self.height} x {self.width}")
        if self.dataset != "digits" and self.data_dir is None:
            raise InputError(f"--data-dir: expected the folder of {self.dataset}'s images, got none")

    def _recipe(self) -> dict[str, Any]:
        return RECIPES[self.dataset]

    @property
    def clusters_per_batch(self) -> int:
        """How many clusters a batch holds."""
        return self.batch_size // self.num_instances

    def stored(self) -> dict[str, Any]:
        """What config.yaml and the checkpoints hold."""
        return {name: getattr(self, name) for name in FIELDS if name not in NOT_STORED}


FIELDS = {item.name: item for item in dataclasses.fields(TrainConfig)}

_INTEGERS = {
    "height": 1, "width": 1, "bn_group": 0, "min_samples": 1, "k1": 1, "k2": 1, "min_cluster_size": 1, "epochs": 1,
    "iters": 1, "batch_size": 1, "num_instances": 1, "step_size": 1, "eval_every": 1, "workers": 0, "seed": 0,
}  # fmt: skip

_REALS: dict[str, dict[str, Any]] = {
    "eps": {"low": 0, "high": 1, "ends": "[)"},
    "min_similarity": {"low": -1, "high": 1},
    "lr": {"low": 0, "ends": "()"},
    "weight_decay": {"low": 0, "ends": "[)"},
    "temperature": {"low": 0, "ends": "()"},
    "momentum": {"low": 0, "high": 1},
}


def flag(name: str) -> str:
    """The command line's name of a field."""
    return "--" + name.replace("_", "-")


def kind(name: str) -> type:
    """The type of a field's value: ``int`` of ``int`` and of ``int | None``."""
    hint = get_type_hints(TrainConfig)[name]
    return next((part for part in get_args(hint) if part is not type(None)), hint)


def default_text(name: str, datasets: tuple[str, ...] = tuple(RECIPES)) -> str:
    """ " (default: ...)" for the help: one value, or one for each of ``datasets`` where they differ."""
    default = FIELDS[name].default
    values = {dataset: RECIPES[dataset].get(name, default) for dataset in datasets}
    if default is False or None in values.values():
        return ""
    if len(set(values.values())) == 1:
        return f" (default: {values[datasets[0]]})"
    return f" (default: {', '.join(f'{value} for {dataset}' for dataset, value in values.items())})"


def _check_choice(options: ClusterOptions, name: str) -> None:
    choices = FIELDS[name].metadata["choices"]
    if choices is not None:
        _check(options, name, checks.choice, choices=choices)


def _check(options: ClusterOptions, name: str, check: Any, **bounds: Any) -> None:
    try:
        setattr(options, name, check(flag(name), getattr(options, name), **bounds))
    except (TypeError, ValueError) as error:
        raise InputError(str(error)) from error


def write_config(path: Path, config: TrainConfig) -> None:
    """Write config.yaml."""
    path.write_text(yaml.safe_dump(config.stored(), sort_keys=False), encoding="utf-8")


def read_config(path: Path, **overrides: Any) -> TrainConfig:
    """The configuration in a run's config.yaml, with ``overrides``."""
    try:
        stored = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path.parent}: not a run folder: it holds no {path.name}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    return from_stored(stored, str(path), **overrides)


def from_stored(stored: Any, source: str, **overrides: Any) -> TrainConfig:
    """A configuration from what :meth:`TrainConfig.stored` gave."""
    if not isinstance(stored, dict):
        raise InputError(f"{source}: expected options and their values, got {type(stored).__name__}")
    unknown = sorted(set(map(str, stored)) - set(FIELDS))
    if unknown:
        raise InputError(f"{source}: unknown option(s) {', '.join(unknown)}")
    return TrainConfig(**{**stored, **overrides})


def resumed_config(given: dict[str, Any]) -> TrainConfig:
    """The configuration of the run folder in ``given`` with what else is given, where a resumed run may change it."""
    if given.get("run") is None:
        raise InputError("--resume: expected the run folder in --run, got none")
    path = Path(given["run"]) / "config.yaml"
    check_unchanged(read_config(path).stored(), given, path.parent)
    return read_config(path, **given)


def check_unchanged(stored: dict[str, Any], wanted: dict[str, Any], run: Path) -> None:
    """Refuse what a resumed run cannot take on."""
    changed = [
        f"{flag(name)} {value} (the run has {stored.get(name)})"
        for name, value in wanted.items()
        if name not in FREE_ON_RESUME and value != stored.get(name)
    ]
    if changed:
        raise InputError(f"--resume: {run} was begun with other options: {', '.join(changed)}")
