"""Command-line options that several commands have, and those from the fields of a configuration."""

from __future__ import annotations

import argparse

from ccfast.training.config import FIELDS, NOT_STORED, default_text, flag, kind

#: What the help calls the value of an option whose type says too little.
METAVARS = {
    "arch": "NAME", "weights": "NAME_OR_FILE", "init": "RUN_OR_CHECKPOINT", "data_dir": "DIR", "run": "DIR",
    "device": "DEVICE", "faiss_index": "FACTORY", "faiss_search": "PARAMETERS",
}  # fmt: skip

#: The data set whose recipe is the default of a command that knows no data set.
PUBLISHED = ("market1501",)


def add_fields(
    parser: argparse.ArgumentParser, names: tuple[str, ...], datasets: tuple[str, ...] | None = None
) -> None:
    """One flag for each of the fields ``names``. Only what is given is passed on: the rest is the recipe's.

    ``datasets``: whose defaults the help names.
    """
    for name in names:
        _add_field(parser, name, default_text(name, datasets))


def _add_field(parser: argparse.ArgumentParser, name: str, default: str) -> None:
    metadata = FIELDS[name].metadata
    text = metadata["help"] + default
    if kind(name) is bool:
        switch = "store_true" if name in NOT_STORED else argparse.BooleanOptionalAction
        parser.add_argument(flag(name), action=switch, default=argparse.SUPPRESS, help=text)
    else:
        metavar = None if metadata["choices"] else METAVARS.get(name, kind(name).__name__.upper())
        parser.add_argument(flag(name), type=kind(name), choices=metadata["choices"], metavar=metavar, help=text)


def add_trained(parser: argparse.ArgumentParser) -> None:
    """What names a trained encoder."""
    parser.add_argument("path", metavar="RUN_OR_CHECKPOINT", help="a run folder (its best.pt is taken) or a .pt file")


def add_ignore_cameras(parser: argparse.ArgumentParser) -> None:
    """Whether images of the query's own camera count."""
    text = FIELDS["ignore_cameras"].metadata["help"]
    parser.add_argument("--ignore-cameras", action=argparse.BooleanOptionalAction, help=f"{text} (default: the run's)")


def add_where(parser: argparse.ArgumentParser) -> None:
    """Where a run's images are now, and what to compute on."""
    parser.add_argument("--data-dir", metavar="DIR", help="folder of the images (default: the run's)")
    parser.add_argument("--device", metavar="DEVICE", help="cpu or cuda (default: cuda where there is one)")
    parser.add_argument("--workers", type=int, metavar="INT", help="processes that load images (default: the run's)")
    parser.add_argument(
        "--max-image-pixels", type=int, metavar="INT", help="larger images cannot be read (default: the run's)"
    )
