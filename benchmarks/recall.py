"""The recall and the time of faiss's indexes, and their effect on the labels.

    python -m benchmarks.recall FEATURES.npy [--index FACTORY:PARAMETERS]...

The rows of the .npy file are normalised. The table has one row for the exact search and one per index: CPU seconds of
one thread to build the index and to search it with all rows, recall (the share of the exact k1 neighbours that were
found, without the row itself), and the agreement (ARI) of the labels with those of the exact neighbours.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import ccfast
from ccfast.training.clustering.faiss_search import FaissSearch, RowsAtHand
from ccfast.training.config import ClusterOptions

#: Indexes and their parameters.
INDEXES = (
    "IVF,Flat:nprobe=1", "IVF,Flat:nprobe=4", "IVF,Flat:nprobe=16", "IVF,Flat:nprobe=64", "IVF,SQ8:nprobe=16",
    "HNSW32:efSearch=16", "HNSW32:efSearch=64", "HNSW32:efSearch=256",
)  # fmt: skip


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("features", type=Path)
    parser.add_argument("--index", action="append", help="FACTORY:PARAMETERS; IVF without a number: 4 sqrt(N) lists")
    parser.add_argument("--k1", type=int, default=30)
    parser.add_argument("--k2", type=int, default=6)
    parser.add_argument("--eps", type=float, default=0.6)
    options = parser.parse_args()
    torch.set_num_threads(1)
    features = F.normalize(torch.from_numpy(np.load(options.features)).float(), dim=1)
    start = time.process_time()
    exact = ccfast.knn(features, options.k1)
    seconds = time.process_time() - start
    labels = _labels(features, exact, options)
    print(f"{features.shape[0]:,} x {features.shape[1]}, k1={options.k1}, eps={options.eps:g}\n")
    print("| index | parameters | build, CPU s | search, CPU s | recall | clusters | noise | ARI |")
    print("|---|---|---|---|---|---|---|---|")
    print(f"| exact | | | {seconds:.1f} | 1 | {_counts(labels)} | 1 |", flush=True)
    for text in options.index or INDEXES:
        _measure(features, exact[0], labels, text, options)


def _measure(features: Tensor, exact: Tensor, labels: Tensor, text: str, options: argparse.Namespace) -> None:
    factory, _, parameters = text.partition(":")
    factory = factory.replace("IVF,", f"IVF{4 * int(len(features) ** 0.5)},")
    clustering = ClusterOptions(
        neighbours="faiss", faiss_index=factory, faiss_search=parameters or "auto", k1=options.k1, k2=options.k2
    )
    start = time.process_time()
    search = FaissSearch(RowsAtHand(features), clustering)
    made = time.process_time()
    found = search.nearest(0, len(features))
    end = time.process_time()
    theirs = _labels(features, found, options)
    recall = _recall(found[0], exact)
    print(
        f"| {factory} | {parameters} | {made - start:.1f} | {end - made:.1f} | {recall:.4f} | {_counts(theirs)} | "
        f"{_ari(theirs, labels):.4f} |",
        flush=True,
    )


def _labels(features: Tensor, given: tuple[Tensor, Tensor], options: argparse.Namespace) -> Tensor:
    near = ccfast.jaccard_distance(features, options.k1, options.k2, max_distance=options.eps, neighbours=given)
    return ccfast.dbscan(near, options.eps)


def _recall(found: Tensor, exact: Tensor) -> float:
    """The share of ``exact`` [N, k], without its first column, that is in the same row of ``found``."""
    offset = torch.arange(len(found))[:, None] * len(found)
    hits = torch.isin((exact[:, 1:] + offset).flatten(), (found + offset).flatten())
    return float(hits.double().mean())


def _counts(labels: Tensor) -> str:
    return f"{int(labels.max()) + 1:,} | {int((labels < 0).sum()):,}"


def _ari(found: Tensor, labels: Tensor) -> float:
    """Adjusted Rand index; every noise row counts as a separate cluster."""
    from sklearn.metrics import adjusted_rand_score

    alone = [torch.where(part < 0, -1 - torch.arange(len(part)), part).numpy() for part in (found, labels)]
    return float(adjusted_rand_score(*alone))


if __name__ == "__main__":
    main()
