"""``ccfast export``."""

from __future__ import annotations

import argparse
from typing import Any

HELP = "write a trained encoder as .pt2 (torch.export) or .onnx"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    from ccfast.commands._options import add_trained

    parser.description = (
        "Write a run's best encoder, or a checkpoint's, as a file that runs without ccfast. Its input is uint8 images "
        "[B, channels, height, width], its output features [B, D] of unit norm. The command first compares the file "
        "with the encoder."
    )
    add_trained(parser)
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="file to write: FILE.pt2 or FILE.onnx")
    parser.add_argument(
        "--batch",
        type=_batch,
        metavar="SIZE",
        help="batch size of the file: a number, or dynamic for any batch size (default: dynamic)",
    )


def _batch(text: str) -> int | None:
    if text == "dynamic":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected dynamic or a batch size of at least 1, got {text!r}")
    return int(text)


def run(options: dict[str, Any]) -> None:
    """Export an encoder."""
    from ccfast.commands.export.onnx import export_encoder

    export_encoder(**options)
