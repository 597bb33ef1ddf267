"""``python -m benchmarks``: measures the ops and writes the rows to a result file."""

from __future__ import annotations

import argparse
import importlib
import math
import sys
import time
from pathlib import Path

import torch

from benchmarks import inputs, results
from benchmarks.attempts import EAGER, Cell
from benchmarks.case import PRESETS, Case
from benchmarks.limits import Limits
from benchmarks.measure import Measured, measure
from benchmarks.peaks import measure_peaks
from ccfast.check import clock

OPS = sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))
#: Seconds of timing per provider. Times on a GPU vary less, and its time is more expensive.
BUDGET = {"cpu": {"quick": 0.5, "full": 1.5}, "cuda": {"quick": 0.2, "full": 0.5}}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--op", choices=OPS, action="append", help="only this family; may be given several times")
    parser.add_argument("--sizes", choices=PRESETS, default="quick", help="sizes of the inputs (default: quick)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="device (default: cpu)")
    parser.add_argument(
        "--features", type=Path, metavar="FILE.npy", help="real features [N, D] instead of synthetic ones"
    )
    parser.add_argument("--output", type=Path, default=results.FOLDER, metavar="DIR", help="folder of the result file")
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="start no case after this time (default: no limit)"
    )
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="measure the processor time of one thread, for a busy CPU",
    )
    options = parser.parse_args(arguments)
    if options.features:
        inputs.use_features(options.features)

    if options.processor_time:
        clock.use_processor_time()
        torch.set_num_threads(1)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: no CUDA device")
    begin = time.monotonic()
    torch.set_float32_matmul_precision("highest")  # no TF32
    inputs.use_device(device)
    peaks = measure_peaks(device)
    origin = results.environment(device, peaks)
    print(", ".join(f"{name} {value}" for name, value in origin.items()), flush=True)
    path = results.file_for(options.output, options.sizes, origin)
    limits = Limits(peaks, device)
    complaints = []
    for op in options.op or OPS:
        for case in importlib.import_module(f"benchmarks.bench_{op}").cases(options.sizes):
            if time.monotonic() - begin > options.seconds:
                complaints.append(f"{case}: not started, the {options.seconds:g} s were over")
                continue
            measured = measure(case, BUDGET[device.type][options.sizes], limits, strict=options.sizes == "quick")
            rows = results.rows_of(case, measured, peaks, origin)
            _print(case, measured, rows)
            results.add(path, rows)
            failed = sorted(measured.failed)
            complaints += [f"{case} by {' as '.join(cell)}: {measured.left_out[cell]}" for cell in failed]
            if measured.lost:
                sys.exit("\n".join([*complaints, f"nothing runs on the GPU any more: {measured.lost}"]))
    print(path)
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return 1 if complaints else 0


def _print(case: Case, measured: Measured, rows: list[results.Row]) -> None:
    print(case, *(f"{name} {value}" for name, value in measured.facts.items()), sep="; ")
    for row in rows:
        cell = Cell(row["provider"], row["mode"])
        name = cell.provider if cell.mode == EAGER else f"{cell.provider}, {cell.mode}"
        if "left_out" in row:
            print(f"  {name:28s} left out: {row['left_out']}", flush=True)
            continue
        memory, difference = row["peak_memory_bytes"], measured.timings[cell].first.difference
        rate = f"{row['rate']:.4g} {row['rate_unit']}, {row['share_of_floor']:.0%} of floor" if "rate" in row else ""
        print(
            f"  {name:28s} {row['median_s'] * 1e3:12.3f} ms "
            f"{'' if memory is None else f'{memory / 1e6:.0f} MB':>9s}  {rate:32s} {difference or 'not compared'}",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
