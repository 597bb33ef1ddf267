"""The images of a gallery that are nearest to each query."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

import torch
from torch import Tensor

import ccfast
from ccfast._files import as_unicode
from ccfast.ops.retrieval import rerank_in_blocks
from ccfast.training.evaluate import DISTANCES, Reranking, neighbours_of_reranking

COLUMNS = ("query", "rank", "image", "score")


@dataclass(frozen=True)
class Results:
    """For each query the nearest images of the gallery, best first, and their scores; both [Q, top] on the CPU.

    ``scores``: cosine similarity in [-1, 1], or 1 minus the distance of k-reciprocal re-ranking, in [0, 1].
    """

    rows: Tensor
    scores: Tensor


def search(query: Tensor, gallery: Tensor, top: int, reranking: Reranking | None = None) -> Results:
    """The ``top`` best images of ``gallery`` [G, D] for each row of ``query`` [Q, D], all of unit norm.

    Equal scores keep the order of the gallery. Distances are computed for one block of queries at a time.
    """
    top = min(top, len(gallery))
    if reranking is None:
        rows, distances = ccfast.knn(gallery, top, queries=query)
        return Results(rows.cpu(), (1 - distances / 2).cpu())  # squared distances of unit features
    k1, k2 = neighbours_of_reranking(len(query) + len(gallery), reranking)
    parts = query.tensor_split(min(len(query), -(-len(query) * len(gallery) // DISTANCES)))
    indices, scores = [], []
    for block in rerank_in_blocks(query, gallery, k1, k2, reranking.lambda_value, [len(part) for part in parts]):
        ordered = block.sort(dim=1, stable=True)
        indices.append(ordered.indices[:, :top].cpu())
        scores.append(1 - ordered.values[:, :top].cpu())
    return Results(torch.cat(indices), torch.cat(scores))


def results_table(queries: list[str], images: list[str], found: Results) -> str:
    """A .csv file with :data:`COLUMNS`, one line per result; ranks count from 1."""
    file = io.StringIO()
    table = csv.writer(file)
    table.writerow(COLUMNS)
    for query, rows, scores in zip(queries, found.rows.tolist(), found.scores.tolist(), strict=True):
        for rank, (row, score) in enumerate(zip(rows, scores, strict=True), 1):
            table.writerow([as_unicode(query), rank, as_unicode(images[row]), f"{score:.6f}"])
    return file.getvalue()
