"""``ccfast check``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

HELP = "test every op on this machine, and time it"

#: The lines of ``ccfast info`` that are printed above the table; the file has all of them.
IN_HEAD = ("ccfast", "commit", "torch", "cuda", "arch_list", "python", "system", "processor", "threads")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.description = (
        "Run every op on small inputs and compare it with its reference, then time it and eager PyTorch. This takes "
        "about a minute and prints a table for a bug report. If something differs, the command names the op and ends "
        "with status 1."
    )
    parser.add_argument(
        "--device", metavar="DEVICE", help="cpu, or cuda for all GPUs (default: cuda if there is a GPU, or else cpu)"
    )
    parser.add_argument("--json", metavar="FILE", help="also write the numbers to a file")


def run(options: dict[str, Any]) -> None:
    """Check, print, write."""
    import torch

    import ccfast
    from ccfast._errors import RunError
    from ccfast._files import given_output, write_whole
    from ccfast.check import speed, table
    from ccfast.check.run import check_device, describe, devices
    from ccfast.commands.info import facts
    from ccfast.training.device import choose_device

    target = given_output("--json", options["json"]) if "json" in options else None
    chosen = {device: describe(device) for device in devices(choose_device(options.get("device")))}
    known = {name: str(value) for name, value in facts()}
    timed = not ccfast.build_info()["emulated"]
    torch.set_float32_matmul_precision("highest")  # no TF32
    print("\n".join([*_head(known, chosen, options, timed), "", table.heading()]), flush=True)
    rows = []
    for device in chosen:
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            for row in check_device(device, speed.REAL[device.type] if timed else None):
                rows.append(row)
                print(table.line(row), flush=True)
    wrong = list(dict.fromkeys(row.op for row in rows if row.faults))
    print("\n".join(["", *table.verdict(rows)]))
    if target is not None:
        by_name = {str(device): text for device, text in chosen.items()}
        report = {"facts": known, "devices": by_name, "wrong": wrong, "rows": [asdict(row) for row in rows]}
        write_whole(target, json.dumps(report, indent=2) + "\n")
    if wrong:
        raise RunError(f"wrong on this machine: {', '.join(wrong)}; please report it with the output above")


def _head(known: dict[str, str], chosen: dict[Any, str], options: dict[str, Any], timed: bool) -> Iterator[str]:
    """The lines above the table: versions, devices, and what is not checked."""
    import torch

    yield from (f"{name}: {known[name]}" for name in IN_HEAD)
    yield from (f"{device}: {text}" for device, text in chosen.items())
    if not timed:
        yield "The emulation only shows whether the kernels are correct; nothing is timed."
    if torch.cuda.is_available() and all(device.type == "cpu" for device in chosen):
        yield f"Not checked: {torch.cuda.device_count()} CUDA device(s); {_why_not(options)}."


def _why_not(options: dict[str, Any]) -> str:
    if "device" in options:
        return "--device cpu was given"
    return "this ccfast was built without CUDA kernels: build with CCFAST_CUDA=1"
