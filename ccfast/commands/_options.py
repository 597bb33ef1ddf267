"""Command-line options of several commands, and options made from the fields of a configuration."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ccfast._processors import allowed_processors
from ccfast.training.config import FIELDS, NOT_STORED, TrainConfig, default_text, flag, kind

if TYPE_CHECKING:
    from ccfast.training.trained import Trained

#: The groups of ``--help``, in this order, and the fields of a configuration in each.
GROUPS = {
    "recipe": (),
    "images": (
        "dataset", "data_dir", "source", "source_dir", "workers", "cache", "bad_images", "max_image_pixels",
    ),
    "method": ("method", "memory", "temperature", "momentum", "mean_teacher", "teacher_momentum"),
    "encoder": (
        "arch", "weights", "init", "pooling", "projection", "height", "width", "freeze_bn", "freeze_patch_embed",
        "bn_group",
    ),
    "clustering": (
        "cluster", "eps", "k1", "k2", "min_samples", "min_similarity", "min_cluster_size", "num_clusters", "noise",
    ),
    "search for neighbours": ("neighbours", "faiss_index", "faiss_search"),
    "batches and optimiser": (
        "epochs", "iters", "batch_size", "num_instances", "optimizer", "lr", "weight_decay", "schedule", "step_size",
        "warmup",
    ),
    "evaluation": ("eval_every", "ignore_cameras"),
    "device and precision": ("device", "amp", "compile", "seed"),
    "run folder and logs": ("run", "resume", "quiet", "tensorboard", "wandb", "mlflow"),
}  # fmt: skip

#: Metavars of options whose type says too little.
METAVARS = {
    "arch": "NAME", "weights": "NAME_OR_FILE", "init": "RUN_OR_CHECKPOINT", "data_dir": "DIR", "source_dir": "DIR",
    "run": "DIR", "device": "DEVICE", "faiss_index": "FACTORY", "faiss_search": "PARAMETERS",
}  # fmt: skip

#: The options of an encoder that was not trained by a run of ccfast.
ENCODER = ("arch", "weights", "pooling", "height", "width")

#: The data set whose recipe gives the defaults of commands without a data set.
DEFAULT_DATASET = ("market1501",)


def group(parser: argparse.ArgumentParser, title: str) -> argparse._ArgumentGroup:
    """The group ``title`` of the help; made when it is first asked for."""
    found = (known for known in parser._action_groups if known.title == title)
    return next(found, None) or parser.add_argument_group(title)


def add_fields(
    parser: argparse._ActionsContainer,
    names: tuple[str, ...],
    datasets: tuple[str, ...] | None = None,
    *,
    with_run: bool = False,
    texts: Mapping[str, str] | None = None,
) -> None:
    """One flag per field in ``names``, in the groups of a parser. A flag that is not given takes the recipe's value.

    ``datasets``: the data sets whose defaults the help names; ``with_run``: a run's own value comes before them.
    ``texts``: the help of options that mean something else in this command, without the default.
    """
    options = {"with_run": with_run, "texts": texts}
    if not isinstance(parser, argparse.ArgumentParser):
        for name in names:
            text = (texts or {}).get(name, FIELDS[name].metadata["help"])
            _add_field(parser, name, text + default_text(name, datasets, with_run=with_run))
        return
    for title, fields in GROUPS.items():
        chosen = tuple(name for name in fields if name in names)
        if chosen:
            add_fields(group(parser, title), chosen, datasets, **options)


def _add_field(parser: argparse._ActionsContainer, name: str, text: str) -> None:
    metadata = FIELDS[name].metadata
    if kind(name) is bool:
        switch = "store_true" if name in NOT_STORED else argparse.BooleanOptionalAction
        parser.add_argument(flag(name), action=switch, default=argparse.SUPPRESS, help=text)
    else:
        metavar = None if metadata["choices"] else METAVARS.get(name, kind(name).__name__.upper())
        value = kind(name) if metadata["word"] is None else _number_or(metadata["word"], kind(name))
        parser.add_argument(flag(name), type=value, choices=metadata["choices"], metavar=metavar, help=text)


def _number_or(word: str, kind: type) -> Callable[[str], Any]:
    """A parser that accepts ``word`` or a ``kind``. argparse uses its name in messages."""

    def value(text: str) -> Any:
        return text if text == word else kind(text)

    value.__name__ = f"{kind.__name__} or {word}"
    return value


def add_trained(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """The argument that names a trained encoder."""
    text = "a run folder (uses its best.pt) or a .pt file"
    parser.add_argument("path", nargs="?" if optional else None, metavar="RUN_OR_CHECKPOINT", help=text)


def add_dataset(parser: argparse.ArgumentParser, text: str = "data set (default: the run's)") -> None:
    """``--dataset``: another data set than the run's, with ``--data-dir``."""
    datasets = FIELDS["dataset"].metadata["choices"]
    group(parser, "images").add_argument("--dataset", choices=datasets, metavar="NAME", help=text)


def add_encoder(parser: argparse.ArgumentParser) -> None:
    """The options of an encoder with existing weights, instead of a run."""
    options = parser.add_argument_group("encoder without a run", "an encoder and its weights, instead of RUN")
    add_fields(options, ENCODER, ("folder",))


def encoder_of(source: str | None, **options: Any) -> Trained:
    """The encoder of the run or checkpoint ``source``; if that is None, of ``--arch`` and ``--weights``.

    Raises:
        InputError: both are given, or neither.
    """
    from ccfast._errors import InputError
    from ccfast.training.trained import from_weights, load_trained

    named = [flag(name) for name in ENCODER if name in options]
    if source is not None:
        if named:
            raise InputError(f"{', '.join(named)}: only without a run; {source} has its own encoder")
        return load_trained(source, **options)
    if "arch" not in options:
        raise InputError("expected a run or a checkpoint, or --arch and --weights for an encoder without a run")
    if options.get("data_dir") is None:
        raise InputError("--data-dir: expected the folder of the images, got none")
    given = {name: value for name, value in options.items() if value is not None}
    return from_weights(TrainConfig(**{"dataset": "folder", "workers": workers_without_run(), **given}))


def workers_without_run() -> int:
    """The default of ``--workers`` where no run gives one."""
    return min(4, allowed_processors())


def add_ignore_cameras(parser: argparse.ArgumentParser) -> None:
    """``--ignore-cameras``: whether gallery images of the query's own camera count."""
    text = f"{FIELDS['ignore_cameras'].metadata['help']} (default: the run's)"
    group(parser, "evaluation").add_argument("--ignore-cameras", action=argparse.BooleanOptionalAction, help=text)


def add_images_and_device(
    parser: argparse.ArgumentParser, *, data_dir: bool = True, run_optional: bool = False
) -> None:
    """The folder of a run's images (``data_dir``), how to read them, and the device; the run may be optional."""
    workers = f"the run's, or {workers_without_run()}" if run_optional else "the run's"
    pixels = f"the run's, or {FIELDS['max_image_pixels'].default}" if run_optional else "the run's"
    images = group(parser, "images")
    if data_dir:
        images.add_argument("--data-dir", metavar="DIR", help="folder of the images (default: the run's)")
    images.add_argument("--workers", type=int, metavar="INT", help=f"processes that load images (default: {workers})")
    images.add_argument(
        "--max-image-pixels", type=int, metavar="INT", help=f"larger images count as unreadable (default: {pixels})"
    )
    text = "cpu or cuda (default: cuda if there is a GPU)"
    group(parser, "device and precision").add_argument("--device", metavar="DEVICE", help=text)
