"""All options of a training run, with their help, their defaults and their checks."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import reprlib
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, get_args, get_type_hints

from ccfast._errors import InputError
from ccfast._files import given_path
from ccfast._limits import MAX_IMAGE_PIXELS
from ccfast.methods.registry import METHODS, defaults_of, method_class
from ccfast.training.clustering import CLUSTERINGS, clusterer
from ccfast.training.recipes import AUTO, BUILT_IN, DEFAULT, INFOMAP_K1, PAPER, RECIPES, Recipe

if TYPE_CHECKING:
    from ccfast.methods import Method

#: Options that do not change what a run computes, so they are not written to its config.yaml.
NOT_STORED = ("run", "resume", "quiet")

#: Fields that are paths, or can be.
PATHS = ("data_dir", "source_dir", "weights", "init", "run")

#: The choices of --memory, for the help, which must not import the methods.
MEMORIES = (
    "cluster-contrast, adca and pgm: sequential, hardest, mean; hhcl: CMhybrid, CM, CMhard, CMhybrid_v2; "
    "3c: hd_camera, cm, cm_hard, cm_camera, cm_hard_camera, tccl_camera"
)

_EXPECTED = {bool: "true or false", str: "text", int: "an integer", float: "a number"}

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring = 2, 200

#: Options that may change when a run is resumed.
FREE_ON_RESUME = (
    *NOT_STORED, "data_dir", "source_dir", "epochs", "eval_every", "device", "workers", "bad_images",
    "max_image_pixels", "tensorboard", "wandb", "mlflow",
)  # fmt: skip


def option(
    text: str, default: Any = None, choices: tuple[str, ...] | None = None, word: str | None = None, **bounds: Any
) -> Any:
    """A field of a configuration; one without a default takes the recipe's value.

    ``word``: a word that is accepted instead of a number. ``bounds``: ``low``, ``high`` and, for real numbers, ``ends``
    of :mod:`ccfast._checks`.
    """
    return field(default=default, metadata={"help": text, "choices": choices, "word": word, "bounds": bounds})


@dataclass
class ClusterOptions:
    """The options of the clustering; missing ones come from the published recipe."""

    cluster: str = option("clustering that finds the pseudo-labels", "dbscan", tuple(CLUSTERINGS))
    eps: float | str = option(
        "DBSCAN: largest Jaccard distance between neighbours, in [0, 1), or auto: chosen in each epoch from its "
        "features",
        word=AUTO, low=0, high=1, ends="[)",
    )  # fmt: skip
    min_samples: int = option("DBSCAN, HDBSCAN: smallest number of neighbours of a core, counting itself", 4, low=1)
    k1: int = option(
        "size of the neighbour lists, counting the image itself: of the k-reciprocal encoding, or of InfoMap's graph",
        low=1,
    )
    k2: int = option("neighbours averaged in the query expansion of the encoding", 6, low=1)
    min_similarity: float = option("InfoMap: smallest cosine similarity of a link", 0.5, low=-1, high=1)
    min_cluster_size: int = option("InfoMap, HDBSCAN: smaller clusters are noise", 5, low=1)
    num_clusters: int | None = option("k-means: number of clusters", low=2)
    noise: str = option(
        "images in no cluster: drop them from the epoch, or make each image its own class", "drop", ("drop", "single")
    )
    neighbours: str = option("search for the nearest images: exact, or approximate with faiss", "exact",
                             ("exact", "faiss"))  # fmt: skip
    faiss_index: str = option(
        "faiss: index, a string for faiss.index_factory, such as IVF4096,Flat or HNSW32; auto: IVF with 4 sqrt(N) "
        "lists",
        AUTO,
    )
    faiss_search: str = option(
        "faiss: search parameters, such as nprobe=64 or efSearch=128; auto: for IVF a 16th of the lists, for HNSW "
        "twice the neighbours",
        AUTO,
    )

    def __post_init__(self) -> None:
        check_field(self, "cluster")
        found = clusterer(self.cluster)
        recipe = {**self._recipe(), **found.recipe}
        for item in dataclasses.fields(self):
            if getattr(self, item.name) is None and item.name in recipe:
                setattr(self, item.name, recipe[item.name])
            check_field(self, item.name)
        self._check_faiss()
        found.check(self)

    def _check_faiss(self) -> None:
        given = [name for name in ("faiss_index", "faiss_search") if getattr(self, name) != AUTO]
        if self.neighbours != "faiss" and given:
            raise InputError(f"{', '.join(map(flag, given))}: only with --neighbours faiss")
        if self.neighbours == "faiss" and importlib.util.find_spec("faiss") is None:
            raise InputError("--neighbours faiss needs the package faiss: pip install faiss-cpu")

    def _recipe(self) -> Recipe:
        return PAPER


@dataclass
class TrainConfig(ClusterOptions):
    """The options of ``ccfast train``. Missing options come from the data set's recipe; then all are checked.

    Examples:
        >>> from ccfast.training import TrainConfig
        >>> config = TrainConfig(dataset="digits", epochs=2, device="cpu")
        >>> config.arch, config.k1, config.clusters_per_batch
        ('smallconv', 20, 16)
    """

    #: The command that has these options.
    command: ClassVar[str] = "train"

    dataset: str = option("data set", DEFAULT, tuple(RECIPES))
    method: str = option(f"training method: {', '.join(METHODS)}, or module:Class for your own", "cluster-contrast")
    data_dir: str | None = option("folder of the images, or the table of --dataset csv (docs/datasets.md)")
    source: str | None = option(
        "a labelled data set from which the method also learns; only with spcl", choices=tuple(RECIPES)
    )
    source_dir: str | None = option("folder of the images of --source, or its table")
    arch: str = option("encoder: smallconv, a ResNet of torchvision, resnet50_ibn_a, timm/NAME or torchreid/NAME")
    weights: str = option("initial weights of the backbone: none, imagenet, a torchvision weights name, or a file")
    init: str | None = option("start from the whole encoder of this run folder or checkpoint, instead of --weights")
    pooling: str = option("pooling of the feature maps", choices=("gem", "average"))
    projection: int = option("size of the features after a linear projection; 0: no projection", 0, low=0)
    height: int = option("height of the encoder's input", low=1)
    width: int = option("width of the encoder's input", low=1)
    freeze_bn: bool = option("keep the backbone's BatchNorm statistics fixed while training", False)
    freeze_patch_embed: bool = option("transformers of timm: keep the patch embedding fixed", False)
    bn_group: int = option("images that BatchNorm normalises together while training; 0: the whole batch", 64, low=0)

    epochs: int = option("number of epochs", low=1)
    iters: int = option("iterations per epoch", low=1)
    batch_size: int = option("images per batch: clusters x instances", low=1)
    num_instances: int = option("images per cluster in a batch; must divide the batch size", low=1)
    optimizer: str = option("optimiser; SGD has momentum 0.9", "adam", ("adam", "adamw", "sgd"))
    lr: float = option("learning rate", low=0, ends="()")
    weight_decay: float = option("weight decay", 5e-4, low=0, ends="[)")
    schedule: str = option(
        "learning rate: divide by ten after every --step-size epochs (step), or half a cosine down to 0 over all "
        "epochs (cosine)", "step", ("step", "cosine"),
    )  # fmt: skip
    step_size: int = option("epochs after which the learning rate is divided by ten", 20, low=1)
    warmup: int = option("epochs in which the learning rate grows to --lr in equal steps", 0, low=0)
    temperature: float = option("temperature of the contrastive loss (default: the method's)", low=0, ends="()")
    momentum: float = option(
        "share of a memory row that an update keeps, in [0, 1] (default: the method's)", low=0, high=1
    )
    mean_teacher: bool = option("cluster with, evaluate and save an average of the encoder over its steps", False)
    teacher_momentum: float = option("share of the mean teacher that a step keeps, in [0, 1]", 0.999, low=0, high=1)
    memory: str | None = option(f"update of the memory, by method: {MEMORIES}; the first is the default")

    eval_every: int = option("epochs between evaluations; the last epoch is always evaluated", low=1)
    ignore_cameras: bool = option("keep gallery images of the query's own camera in the evaluation", False)
    device: str | None = option("cpu or cuda (default: cuda if there is a GPU)")
    workers: int = option("processes that load images; 0: load them in the main process", low=0)
    cache: str = option("decode each image once and keep it in RAM or on the device", "none", ("none", "ram", "device"))
    amp: str = option(
        "precision of the encoder: none (float32), or autocast to bf16 or fp16", "none", ("none", "bf16", "fp16")
    )
    compile: bool = option("compile the encoder with torch.compile", False)
    seed: int = option("seed of everything random; on the CPU the same seed gives the same run", 0, low=0)
    bad_images: str = option("if an image cannot be read: stop, or leave it out", "refuse", ("refuse", "skip"))

    max_image_pixels: int = option(
        "images with more pixels count as unreadable: a small file can contain an image that fills the memory",
        MAX_IMAGE_PIXELS, low=1,
    )  # fmt: skip

    tensorboard: bool = option("also write the metrics for TensorBoard, to the run folder", False)
    wandb: bool = option("log the metrics to Weights & Biases (WANDB_MODE=offline: to the run folder)", False)
    mlflow: bool = option("log the metrics to MLflow, at MLFLOW_TRACKING_URI or in the run folder", False)
    run: str | None = option("run folder (default: runs/<dataset>-<time>)")
    resume: bool = option("continue the run in the folder of --run", False)
    quiet: bool = option("print only warnings and errors", False)

    def __post_init__(self) -> None:
        check_field(self, "dataset")
        check_field(self, "method")
        check_field(self, "memory")
        super().__post_init__()
        if self.batch_size % self.num_instances or self.batch_size < 2 * self.num_instances:
            raise InputError(
                f"--batch-size: expected a multiple of --num-instances ({self.num_instances}), "
                f"at least twice as large, got {self.batch_size}"
            )
        if self.bn_group == 1:
            raise InputError("--bn-group: expected 0 or at least 2, got 1 (one image has no variance)")
        if self.schedule == "cosine" and self.warmup >= self.epochs:
            raise InputError(f"--warmup: expected fewer than the {self.epochs} epochs, got {self.warmup}")
        for package in ("tensorboard", "wandb", "mlflow"):
            if getattr(self, package) and importlib.util.find_spec(package) is None:
                raise InputError(f"{flag(package)} needs the package {package}: pip install 'ccfast[{package}]'")
        if self.teacher_momentum != FIELDS["teacher_momentum"].default and not self.mean_teacher:
            raise InputError("--teacher-momentum: only with --mean-teacher")
        _require_folder("data_dir", self.dataset, self.data_dir)
        self._check_source()

    def _check_source(self) -> None:
        if self.source is None:
            if self.source_dir is not None:
                raise InputError("--source-dir: only with --source")
            return
        method = self._method_class()
        if method is not None and not method.joint:
            able = ", ".join(name for name in METHODS if method_class(name).joint)
            raise InputError(
                f"--source: --method {self.method} cannot also learn from a labelled source; expected {able}, or "
                "your own method whose class has joint = True"
            )
        _require_folder("source_dir", self.source, self.source_dir)

    def _recipe(self) -> Recipe:
        return {**RECIPES[self.dataset], **self._defaults_of_method()}

    def _method_class(self) -> type[Method] | None:
        """None if the options of a finished run with an own method are read: its encoder works without the module."""
        whole = all(getattr(self, name) is not None for name in FIELDS_WITHOUT_DEFAULT)
        return None if whole and self.method not in METHODS else method_class(self.method)

    def _defaults_of_method(self) -> Recipe:
        method = self._method_class()
        if method is None:
            return {}
        found = defaults_of(method)
        unknown = [shortened(name) for name in found if name not in FIELDS or name in NOT_BY_METHOD]
        if unknown:
            raise InputError(f"--method {self.method}: its defaults have unknown option(s) {', '.join(unknown)}")
        if found["memory"] is None:
            if self.memory is not None:
                got = shortened(self.memory)
                raise InputError(f"--memory: expected no value with --method {self.method}, got {got}")
        elif self.memory is not None:
            check_choice("memory", self.memory, method.memories)
        return found

    @property
    def clusters_per_batch(self) -> int:
        """The number of clusters in a batch."""
        return self.batch_size // self.num_instances

    def stored(self) -> dict[str, Any]:
        """The options that config.yaml and the checkpoints store."""
        return {name: getattr(self, name) for name in FIELDS if name not in NOT_STORED}


def _require_folder(name: str, dataset: str, folder: str | None) -> None:
    """Raise an error if ``dataset`` needs a folder and the option ``name`` gives none."""
    if dataset not in BUILT_IN and folder is None:
        what = "folder that holds" if dataset != "csv" else "table that lists"
        raise InputError(f"{flag(name)}: expected the {what} the images of {dataset!r}, got none")


FIELDS = {item.name: item for item in dataclasses.fields(TrainConfig)}

#: Options that a method's class cannot set.
NOT_BY_METHOD = ("dataset", "method", "data_dir", "init", "device", *NOT_STORED)


def flag(name: str) -> str:
    """The name of a field on the command line."""
    return "--" + name.replace("_", "-")


@cache
def kind(name: str) -> type:
    """The type of a field's value: ``int`` for ``int`` and for ``int | None``."""
    hint = get_type_hints(TrainConfig)[name]
    return next((part for part in get_args(hint) if part is not type(None)), hint)


def is_optional(name: str) -> bool:
    """Whether a field may be None."""
    return type(None) in get_args(get_type_hints(TrainConfig)[name])


#: Fields that a recipe or the method must set.
FIELDS_WITHOUT_DEFAULT = tuple(
    name for name, item in FIELDS.items() if item.default is None and not is_optional(name) and name not in NOT_STORED
)


def default_text(name: str, datasets: tuple[str, ...] | None = None, *, with_run: bool = False) -> str:
    """ " (default: ...)" for the help: one value, or the most common one and those of the ``datasets`` that differ.

    ``with_run``: a run's own value comes before them.
    """
    default = FIELDS[name].default
    by_method = f", {INFOMAP_K1} with --cluster infomap" if name == "k1" else ""
    values = {dataset: RECIPES[dataset].get(name, default) for dataset in datasets or RECIPES}
    if default is False or None in values.values():
        return ""
    datasets_of: dict[Any, list[str]] = {}
    for dataset, value in values.items():
        datasets_of.setdefault(value, []).append(dataset)
    common = max(datasets_of, key=lambda value: len(datasets_of[value]))
    others = "".join(f", {value} for {' and '.join(of)}" for value, of in datasets_of.items() if value != common)
    first = "the run's, or " if with_run else ""
    return f" (default: {first}{common}{others}{by_method})"


def shortened(value: Any) -> str:
    """``value`` for a message, shortened; it can be any object."""
    try:
        text = value if isinstance(value, str) else _SHORT.repr(value)
    except ValueError:  # an integer of thousands of digits
        return f"a {type(value).__name__} of thousands of digits"
    return text if len(text) <= 200 else f"{text[:200]}..."


def expanded(name: str, value: Any) -> Any:
    """The value of a field; ``~`` in a path is expanded, and an empty path is an error."""
    if name not in PATHS or value is None or not isinstance(value, str | os.PathLike):
        return value
    if name == "weights" and not (isinstance(value, os.PathLike) or value.startswith("~")) and value.strip():
        return value  # may be a name
    return str(given_path(flag(name), value))


def check_field(options: Any, name: str) -> None:
    """Check the field ``name`` of ``options``, and give a number or a path its type."""
    from ccfast import _checks as checks  # imports torch, which the help must not do

    item = next(item for item in dataclasses.fields(options) if item.name == name)
    choices, bounds = item.metadata["choices"], item.metadata["bounds"]
    setattr(options, name, expanded(name, getattr(options, name)))
    value, word = getattr(options, name), item.metadata["word"]
    if (word is not None and value == word) or (value is None and is_optional(name)):
        return
    expected = _EXPECTED[kind(name)] + ("" if word is None else f" or {word}")
    wrong = not isinstance(value, kind(name)) if kind(name) in (bool, str) else not _may_be_number(value)
    if wrong and value is not None:  # YAML's values have types
        raise InputError(f"{flag(name)}: expected {expected}, got {shortened(value)}")
    try:
        if choices is not None:
            checks.choice(flag(name), getattr(options, name), choices=choices)
        if bounds:
            check = checks.integer if kind(name) is int else checks.real
            limits = {"high": 2**31 - 1, **bounds} if kind(name) is int else bounds
            setattr(options, name, check(flag(name), getattr(options, name), **limits))
    except OverflowError as error:  # an integer of hundreds of digits
        raise InputError(f"{flag(name)}: expected {expected}, got one that is too large") from error
    except (TypeError, ValueError) as error:
        raise InputError(shortened(str(error))) from error


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Check that ``value`` is one of ``choices``, for the field ``name``."""
    from ccfast import _checks as checks

    try:
        checks.choice(flag(name), value, choices=choices)
    except (TypeError, ValueError) as error:
        raise InputError(shortened(str(error))) from error


def _may_be_number(value: Any) -> bool:
    """Whether ``value`` may be a number; text may be one, because YAML reads 1e-3 as text."""
    return isinstance(value, str) or (hasattr(value, "__float__") and not isinstance(value, bool))
