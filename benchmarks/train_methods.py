"""Trains the methods of ``ccfast train`` on a data set with several seeds each, and prints a table of the results.

``python -m benchmarks.train_methods --methods cluster-contrast hhcl -o FILE.json [options of ccfast train]``

A method and seed that are already in the file are not trained again; for other options use another file.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.results import machine
from ccfast.commands import train as command
from ccfast.training import train
from ccfast.training.config_file import config_from_options

Run = dict[str, Any]

#: The metrics that are kept.
METRICS = ("mAP", "rank1")


def main() -> None:
    """Train the missing runs, one after the other, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", required=True, metavar="METHOD")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE.json")
    ours, others = parser.parse_known_args()
    options = argparse.ArgumentParser(argument_default=argparse.SUPPRESS)
    command.add_options(options)
    given = vars(options.parse_args(others))
    found: dict[str, Any] = json.loads(ours.output.read_text()) if ours.output.exists() else {"runs": []}
    found |= {"machine": machine(torch.device("cpu")), "command": shlex.join(["ccfast", "train", *others])}
    for seed in ours.seeds:
        for method in ours.methods:
            if not any((run["method"], run["seed"]) == (method, seed) for run in found["runs"]):
                found["runs"].append(trained({**given, "method": method, "seed": seed, "quiet": True}))
                ours.output.write_text(json.dumps(found, indent=1) + "\n")
                print(json.dumps(found["runs"][-1]), file=sys.stderr)
    print(table(found["runs"]))


def trained(options: dict[str, Any]) -> Run:
    """One run: metrics before and after, and CPU seconds."""
    with tempfile.TemporaryDirectory() as folder:
        wall, cpu = time.perf_counter(), time.process_time()
        records = train(config_from_options({**options, "run": f"{folder}/run"})).records
        cost = {"seconds": round(time.perf_counter() - wall, 1), "cpu_seconds": round(time.process_time() - cpu, 1)}
    first, last = records[0], records[-1]
    return {
        "method": options["method"],
        "seed": options["seed"],
        "before": {name: first[name] for name in METRICS},
        "after": {name: last[name] for name in METRICS},
        "epochs": last["epoch"],
        "clusters": last["clusters"],
        "noise": last["noise"],
        **cost,
    }


def table(runs: list[Run]) -> str:
    """Percent, mean and standard deviation over the seeds; seconds of the processor."""
    lines = [
        "| method | mAP before | mAP after | rank-1 before | rank-1 after | clusters, noise at the end | CPU s |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for method in dict.fromkeys(run["method"] for run in runs):
        own = [run for run in runs if run["method"] == method]
        cells = [_spread([100 * run[when][name] for run in own]) for name in METRICS for when in ("before", "after")]
        clusters, noise, seconds = (
            statistics.mean(run[name] for run in own) for name in ("clusters", "noise", "cpu_seconds")
        )
        lines.append(f"| {method} | {' | '.join(cells)} | {clusters:.0f}, {noise:.0f} | {seconds:.0f} |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(set(values)) > 1 else mean


if __name__ == "__main__":
    main()
