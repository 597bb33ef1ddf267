"""How the stages between features and labels grow with N, on one thread of the CPU.

    python -m benchmarks.growth --dim 32 --rows 25000 50000 100000 200000

CPU seconds of every stage for each N, and the exponent of their growth between the last two: 1 is linear, 2 quadratic.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

import ccfast
from benchmarks.inputs import clustered_features
from ccfast.ops.jaccard import column_shift, csr_tensor, half_columns

ops = torch.ops.ccfast
STAGES = ("neighbours", "encoding", "query expansion", "Jaccard distance", "DBSCAN")


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[25_000, 50_000, 100_000, 200_000])
    parser.add_argument("--dim", type=int, default=32)
    parser.add_argument("--noise", type=float, default=1.0, help="norm of the noise around a centre of norm 1")
    parser.add_argument("--k1", type=int, default=30)
    parser.add_argument("--k2", type=int, default=6)
    parser.add_argument("--eps", type=float, default=0.6)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"D={options.dim}, k1={options.k1}, k2={options.k2}, eps={options.eps:g}; CPU seconds of one thread\n")
    print(f"| N | {' | '.join(STAGES)} | all | clusters |\n|{'---|' * (len(STAGES) + 3)}")
    measured: list[dict[str, float]] = []
    for rows in options.rows:
        seconds, clusters = measure(rows, options)
        measured.append(seconds)
        numbers = [f"{seconds[stage]:.2f}" for stage in STAGES]
        print(f"| {rows:,} | {' | '.join(numbers)} | {sum(seconds.values()):.1f} | {clusters:,} |", flush=True)
    if len(measured) > 1:
        exponents = _exponents(measured[-2], measured[-1], options.rows[-1] / options.rows[-2])
        print(f"| exponent | {' | '.join(f'{value:.2f}' for value in exponents)} | |")


def measure(rows: int, options: argparse.Namespace) -> tuple[dict[str, float], int]:
    """CPU seconds per stage, and the number of clusters."""
    x = clustered_features(rows, options.dim, options.noise)
    seconds: dict[str, float] = {}
    with _timed(seconds, "neighbours"):
        rank, distances = ccfast.knn(x, options.k1)
    with _timed(seconds, "encoding"):
        v = ops.encode_neighbours(x, rank, distances, half_columns(options.k1), None, column_shift(x))
    with _timed(seconds, "query expansion"):
        v = ops.expand_queries(*v, rank, options.k2)
    with _timed(seconds, "Jaccard distance"):
        near = csr_tensor(ops.sparse_jaccard(*v, options.eps), rows)
    with _timed(seconds, "DBSCAN"):
        labels = ccfast.dbscan(near, options.eps)
    return seconds, int(labels.max()) + 1


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.process_time()
    yield
    seconds[stage] = time.process_time() - start


def _exponents(smaller: dict[str, float], larger: dict[str, float], ratio: float) -> list[float]:
    """Of every stage, and of all together."""
    exponent: Callable[[float, float], float] = lambda a, b: math.log(b / a) / math.log(ratio)  # noqa: E731
    stages = [exponent(smaller[stage], larger[stage]) for stage in STAGES]
    return [*stages, exponent(sum(smaller.values()), sum(larger.values()))]


if __name__ == "__main__":
    main()
