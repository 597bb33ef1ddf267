"""Command-line options that several commands have, and those from the fields of a configuration."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ccfast.training.config import FIELDS, NOT_STORED, TrainConfig, default_text, flag, kind

if TYPE_CHECKING:
    from ccfast.training.trained import Trained

#: What the help calls the value of an option whose type says too little.
METAVARS = {
    "arch": "NAME", "weights": "NAME_OR_FILE", "init": "RUN_OR_CHECKPOINT", "data_dir": "DIR", "source_dir": "DIR",
    "run": "DIR", "device": "DEVICE", "faiss_index": "FACTORY", "faiss_search": "PARAMETERS",
}  # fmt: skip

#: The options of an encoder that was not trained here.
ENCODER = ("arch", "weights", "pooling", "height", "width")

#: The data set whose recipe is the default of a command that knows no data set.
DEFAULT_DATASET = ("market1501",)


def add_fields(
    parser: argparse._ActionsContainer, names: tuple[str, ...], datasets: tuple[str, ...] | None = None
) -> None:
    """One flag for each of the fields ``names``. Only what is given is passed on: the rest is the recipe's.

    ``datasets``: whose defaults the help names.
    """
    for name in names:
        _add_field(parser, name, default_text(name, datasets))


def _add_field(parser: argparse._ActionsContainer, name: str, default: str) -> None:
    metadata = FIELDS[name].metadata
    text = metadata["help"] + default
    if kind(name) is bool:
        switch = "store_true" if name in NOT_STORED else argparse.BooleanOptionalAction
        parser.add_argument(flag(name), action=switch, default=argparse.SUPPRESS, help=text)
    else:
        metavar = None if metadata["choices"] else METAVARS.get(name, kind(name).__name__.upper())
        value = kind(name) if metadata["word"] is None else _number_or(metadata["word"], kind(name))
        parser.add_argument(flag(name), type=value, choices=metadata["choices"], metavar=metavar, help=text)


def _number_or(word: str, kind: type) -> Callable[[str], Any]:
    """A parser of what is ``word`` or of ``kind``; its name is what argparse calls the value."""

    def value(text: str) -> Any:
        return text if text == word else kind(text)

    value.__name__ = f"{kind.__name__} or {word}"
    return value


def add_trained(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """What names a trained encoder."""
    text = "a run folder (its best.pt is taken) or a .pt file"
    parser.add_argument("path", nargs="?" if optional else None, metavar="RUN_OR_CHECKPOINT", help=text)


def add_dataset(parser: argparse.ArgumentParser, text: str = "data set (default: the run's)") -> None:
    """Another data set than the run's, with ``--data-dir``."""
    datasets = FIELDS["dataset"].metadata["choices"]
    parser.add_argument("--dataset", choices=datasets, metavar="NAME", help=text)


def add_encoder(parser: argparse.ArgumentParser) -> None:
    """An encoder that was not trained here, in the place of a run."""
    group = parser.add_argument_group("without a run", "an encoder with weights that are there already")
    add_fields(group, ENCODER, ("folder",))


def encoder_of(source: str | None, **options: Any) -> Trained:
    """The encoder of the run or checkpoint ``source``, or without one that of ``--arch`` and ``--weights``.

    Raises:
        InputError: both, or neither.
    """
    from ccfast._errors import InputError
    from ccfast.training.trained import from_weights, load_trained

    named = [flag(name) for name in ENCODER if name in options]
    if source is not None:
        if named:
            raise InputError(f"{', '.join(named)}: only without a run, whose encoder {source} is")
        return load_trained(source, **options)
    if "arch" not in options:
        raise InputError("expected a run or a checkpoint, or --arch and --weights for an encoder without one")
    if options.get("data_dir") is None:
        raise InputError("--data-dir: expected the folder of the images, got none")
    given = {name: value for name, value in options.items() if value is not None}
    return from_weights(TrainConfig(**{"dataset": "folder", **given}))


def add_ignore_cameras(parser: argparse.ArgumentParser) -> None:
    """Whether images of the query's own camera count."""
    text = FIELDS["ignore_cameras"].metadata["help"]
    parser.add_argument("--ignore-cameras", action=argparse.BooleanOptionalAction, help=f"{text} (default: the run's)")


def add_where(parser: argparse.ArgumentParser, *, data_dir: bool = True) -> None:
    """Where a run's images are now (``data_dir``), and what to compute on."""
    if data_dir:
        parser.add_argument("--data-dir", metavar="DIR", help="folder of the images (default: the run's)")
    parser.add_argument("--device", metavar="DEVICE", help="cpu or cuda (default: cuda where there is one)")
    parser.add_argument("--workers", type=int, metavar="INT", help="processes that load images (default: the run's)")
    parser.add_argument(
        "--max-image-pixels", type=int, metavar="INT", help="larger images cannot be read (default: the run's)"
    )
