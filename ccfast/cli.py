"""The command line: train, evaluate, cluster, info. Exit status: 0 done, 1 could not go on, 2 wrong input."""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import sys
from collections.abc import Sequence
from typing import Any

from ccfast._errors import InputError, RunError

OPTIONAL_PACKAGES = ("torchvision", "timm", "infomap", "matplotlib")
#: Failures of the machine, by what torch says of them.
ADVICE = {
    "out of memory": "Try a smaller --batch-size.",
    "DataLoader worker": "Try --workers 0, or more shared memory (/dev/shm).",
}

INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    options = vars(_parser().parse_args(arguments))
    command = options.pop("command")
    _set_up_log(quiet=options.get("quiet", False))
    try:
        COMMANDS[command](options)
    except InputError as error:
        return _fail(command, error, 2)
    except RunError as error:
        return _fail(command, error, 1)
    except KeyboardInterrupt as error:
        return _fail(command, str(error) or "interrupted", INTERRUPTED)
    except OSError as error:  # a full disk, a folder that may not be written
        return _fail(command, error, 1)
    except RuntimeError as error:
        advice = next((advice for symptom, advice in ADVICE.items() if symptom in str(error)), None)
        if advice is None:
            raise
        return _fail(command, f"{str(error).splitlines()[0]} {advice}", 1)
    return 0


def _fail(command: str, message: object, status: int) -> int:
    text = str(message)
    if "Original Traceback" in text:  # an error of a process that loads images: its last line is the error's own
        text = text.splitlines()[-1].partition(": ")[2]
    print(f"ccfast {command}: {text}", file=sys.stderr)
    return status


def _train(options: dict[str, Any]) -> None:
    from ccfast.training import TrainConfig, train
    from ccfast.training.allocator import keep_freed_memory
    from ccfast.training.config import resumed_config

    keep_freed_memory()
    train(resumed_config(options) if options.get("resume") else TrainConfig(**options))


def _evaluate(options: dict[str, Any]) -> None:
    from ccfast.training.allocator import keep_freed_memory
    from ccfast.training.evaluate_checkpoint import evaluate_checkpoint

    keep_freed_memory()
    evaluate_checkpoint(**options)


def _cluster(options: dict[str, Any]) -> None:
    from ccfast.training.cluster_file import cluster_file

    cluster_file(**options)


def _info(options: dict[str, Any]) -> None:
    import torch

    import ccfast

    for name, value in ccfast.build_info().items():
        print(f"{name}: {value}")
    print(f"torch: {torch.__version__}, {torch.get_num_threads()} threads")
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    print(f"cuda devices: {', '.join(gpus) or 'none'}")
    for package in OPTIONAL_PACKAGES:
        print(f"{package}: {_version(package)}")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


COMMANDS = {"train": _train, "evaluate": _evaluate, "cluster": _cluster, "info": _info}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ccfast", description="Fast Cluster Contrast: re-ID training without labels.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, add_options, text in (
        ("train", _add_train, "train an encoder without labels"),
        ("evaluate", _add_evaluate, "mAP and CMC of a run's best encoder, or of a checkpoint"),
        ("cluster", _add_cluster, "cluster the rows of a .npy file"),
        ("info", lambda _: None, "how ccfast was built, and what it finds here"),
    ):
        add_options(commands.add_parser(name, help=text, allow_abbrev=False, argument_default=argparse.SUPPRESS))
    return parser


def _add_train(parser: argparse.ArgumentParser) -> None:
    """One flag for each field of TrainConfig. Only what is given is passed on: the rest is the data set's recipe."""
    from ccfast.training.config import FIELDS, default_text

    parser.description = "Train an encoder without labels. With no option: scikit-learn's digits, about a minute."
    for name in FIELDS:
        _add_option(parser, name, default_text(name))


def _add_option(parser: Any, name: str, default: str) -> None:
    from ccfast.training.config import FIELDS, flag, kind

    metadata = FIELDS[name].metadata
    text = metadata["help"] + default
    if kind(name) is bool:
        parser.add_argument(flag(name), action="store_true", default=argparse.SUPPRESS, help=text)
    else:
        metavar = None if metadata["choices"] else kind(name).__name__.upper()
        parser.add_argument(flag(name), type=kind(name), choices=metadata["choices"], metavar=metavar, help=text)


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="RUN_OR_CHECKPOINT", help="a run folder (its best.pt is taken) or a .pt file")
    parser.add_argument("--rerank", action="store_true", help="k-reciprocal re-ranking of the gallery first")
    parser.add_argument("--data-dir", help="folder of the images (default: the run's)")
    parser.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")
    parser.add_argument("--workers", type=int, help="processes that load images (default: the run's)")


def _add_cluster(parser: argparse.ArgumentParser) -> None:
    from ccfast.training.config import default_text

    parser.description = "Cluster the rows of a .npy file [N, D] of unit norm; writes labels [N], -1 for noise."
    parser.add_argument("features", metavar="FEATURES.npy")
    parser.add_argument("-o", "--output", required=True, metavar="LABELS.npy", help="where the labels go")
    parser.add_argument("--normalize", action="store_true", help="scale the rows to unit norm first")
    for name in ("cluster", "eps", "k1", "k2", "min_samples", "min_similarity", "min_cluster_size", "device"):
        _add_option(parser, name, default_text(name, ("market1501",)))


def _set_up_log(quiet: bool) -> None:
    """Progress to stdout, warnings to stderr."""
    log = logging.getLogger("ccfast")
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    log.handlers.clear()
    log.propagate = False
    news, warnings = logging.StreamHandler(sys.stdout), logging.StreamHandler(sys.stderr)
    news.addFilter(lambda record: record.levelno < logging.WARNING)
    warnings.setLevel(logging.WARNING)
    warnings.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    for handler in (news, warnings):
        log.addHandler(handler)
