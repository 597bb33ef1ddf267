"""``ccfast check``."""

from __future__ import annotations

import argparse
import json
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

HELP = "whether every op is right on this machine, and how fast"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.description = (
        "Run every op on small inputs and compare it with its reference, then time it beside eager PyTorch: about a "
        "minute. Prints a table for a bug report; ends with status 1, and the name of the op, where something differs."
    )
    parser.add_argument(
        "--device", metavar="DEVICE", help="cpu or cuda: all GPUs (default: cuda where there is one, else cpu)"
    )
    parser.add_argument("--json", metavar="FILE", help="write the numbers to a file too")


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
    chosen = devices(choose_device(options.get("device")))
    torch.set_float32_matmul_precision("highest")  # no TF32
    found = dict(facts())
    for name in ("ccfast", "commit", "torch", "cuda", "arch_list", "python", "system", "processor", "threads"):
        print(f"{name}: {found[name]}")
    for device in chosen:
        print(f"{device}: {describe(device)}")
    emulated = ccfast.build_info()["emulated"]
    if emulated:
        print("The emulation only shows whether the kernels are right: nothing is timed.")
    if chosen[0].type == "cpu" and torch.cuda.is_available():
        print(f"Not checked: {torch.cuda.device_count()} CUDA device(s); {_why_not(options)}.")
    print(f"\n{table.heading()}", flush=True)
    rows = []
    for device in chosen:
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            for row in check_device(device, None if emulated else speed.REAL[device.type]):
                rows.append(row)
                print(table.line(row), flush=True)
    wrong = list(dict.fromkeys(row.op for row in rows if row.faults))
    print("\n".join(["", *(table.faults(rows) or ["every op is right"])]))
    if target is not None:
        report = {
            "facts": {name: str(value) for name, value in found.items()},
            "devices": {str(device): describe(device) for device in chosen},
            "wrong": wrong,
            "rows": [asdict(row) for row in rows],
        }
        write_whole(target, json.dumps(report, indent=2) + "\n")
    if wrong:
        raise RunError(f"wrong on this machine: {', '.join(wrong)}; please report it with the output above")


def _why_not(options: dict[str, Any]) -> str:
    if "device" in options:
        return "--device cpu was given"
    return "this ccfast was built without CUDA kernels: build with CCFAST_CUDA=1"
