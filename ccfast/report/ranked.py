"""Ranked lists: for some queries, the first results in the gallery."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ccfast.data import Comparison, Part, ReIDData

#: Number of gallery images in a list.
TOP = 10


@dataclass(frozen=True)
class Entry:
    """A gallery image in a list: its row in the gallery, squared Euclidean distance, and whether it is a match."""

    index: int
    distance: float
    right: bool


@dataclass(frozen=True)
class RankedList:
    """A query's row, its average precision, why it was chosen ("best", "in between", "worst"), and its list."""

    query: int
    precision: float
    group: str
    matches: int
    entries: list[Entry]


def ranked_lists(data: ReIDData, query_features: Tensor, gallery_features: Tensor, count: int) -> list[RankedList]:
    """Lists of at most ``count`` queries, the best first, by the first trial of the data set's main protocol.

    A third of the queries have the highest average precision, a third the lowest, and the rest is spread evenly
    between; queries without a match are left out.
    """
    comparisons = next(iter(data.protocols.values())).trials[0]
    searched_by = {row: comparison for comparison in comparisons for row in comparison.query.tolist()}
    precision = torch.full((len(data.query),), torch.nan, dtype=torch.float64)
    for comparison in comparisons:
        distances = _distances(query_features, gallery_features, comparison.query, comparison)
        precision[comparison.query] = _average_precisions(distances, data.query, data.gallery, comparison)
    lists = []
    for row, group in choose(precision, data.query.ids, count):
        comparison = searched_by[row]
        distances = _distances(query_features, gallery_features, torch.tensor([row]), comparison)[0].cpu()
        entries, matches = _nearest(distances, row, data.query, data.gallery, comparison.gallery)
        lists.append(RankedList(row, float(precision[row]), group, matches, entries))
    return lists


def _distances(query: Tensor, gallery: Tensor, rows: Tensor, comparison: Comparison) -> Tensor:
    """Squared Euclidean distances of the queries ``rows`` to the comparison's gallery."""
    return 2 - 2 * query[rows.to(query.device)] @ gallery[comparison.gallery.to(gallery.device)].T


def _average_precisions(distances: Tensor, query: Part, gallery: Part, comparison: Comparison) -> Tensor:
    """The average precision of each query of the comparison, on the CPU; NaN for queries without a match."""
    columns = [
        None if column is None else column[rows].to(distances.device)
        for column, rows in (
            (query.ids, comparison.query),
            (gallery.ids, comparison.gallery),
            (query.cams, comparison.query),
            (gallery.cams, comparison.gallery),
        )
    ]
    precision, first_match, _ = torch.ops.ccfast.evaluate_ranking(distances, *columns)
    return torch.where(first_match >= 0, precision, torch.nan).cpu()


def choose(precision: Tensor, ids: Tensor, count: int) -> list[tuple[int, str]]:
    """Rows of at most ``count`` queries and why each was chosen, from the highest precision to the lowest.

    At both ends each identity appears once, if there are enough identities.
    """
    ranked = precision.argsort(descending=True, stable=True)
    order = [row for row in ranked.tolist() if not precision[row].isnan()]
    count = min(count, len(order))
    ends = count // 3
    best = _of_different_identities(order, ids, ends)
    worst = _of_different_identities([row for row in reversed(order) if row not in best], ids, ends)
    wanted = count - 2 * ends
    inner = order[max(map(order.index, best), default=-1) + 1 : min(map(order.index, worst), default=len(order))]
    rest = inner if len(inner) >= wanted else [row for row in order if row not in best and row not in worst]
    between = [rest[(2 * number + 1) * len(rest) // (2 * wanted)] for number in range(wanted)]
    groups = (("best", best), ("in between", between), ("worst", worst))
    chosen = [(row, group) for group, rows in groups for row in rows]
    return sorted(chosen, key=lambda pair: order.index(pair[0]))


def _of_different_identities(rows: list[int], ids: Tensor, count: int) -> list[int]:
    """The first ``count`` rows with each identity once; filled up with other rows if there are too few."""
    seen: set[int] = set()
    first: list[int] = []
    again: list[int] = []
    for row in rows:
        (again if int(ids[row]) in seen else first).append(row)
        seen.add(int(ids[row]))
    return (first + again)[:count]


def _nearest(distances: Tensor, row: int, query: Part, gallery: Part, rows: Tensor) -> tuple[list[Entry], int]:
    """The first entries of query ``row``'s list, and the number of matches in the whole list.

    ``distances`` [g] are those to the rows ``rows`` [g] of the gallery; equal distances keep the order of the rows.
    """
    same = gallery.ids[rows] == query.ids[row]
    kept = torch.ones_like(same)
    if query.cams is not None and gallery.cams is not None:
        kept = ~(same & (gallery.cams[rows] == query.cams[row]))
    order = distances.argsort(stable=True)
    order = order[kept[order]][:TOP].tolist()
    entries = [Entry(int(rows[column]), max(0.0, float(distances[column])), bool(same[column])) for column in order]
    return entries, int((same & kept).sum())
