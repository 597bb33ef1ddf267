"""Measures of query and gallery besides the means: CMC curve, same and different pairs, and each camera."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ccfast.data import ReIDData
from ccfast.training.evaluate import Search, rows_with_match
from ccfast.training.verification import Verification, histograms, verify

#: Ranks of the CMC curve, and fine bins of the histograms, which the chart merges as needed.
RANKS, BINS = 20, 4000


@dataclass(frozen=True)
class Camera:
    """The queries of a camera: the number with a match, their mAP and their rank-1."""

    camera: int
    queries: int
    mAP: float
    rank1: float


@dataclass(frozen=True)
class Measures:
    """The measures of the first trial of the main protocol.

    ``cmc``: for each rank from 1, the share of queries with a match up to this rank. ``same`` and ``different`` [BINS]:
    the shares of same and of different pairs whose squared Euclidean distance is in each bin of [0, 4]. ``cameras`` is
    empty if there are fewer than two cameras.
    """

    cmc: list[float]
    same: list[float]
    different: list[float]
    cameras: list[Camera]
    verification: Verification | None


def measure(data: ReIDData, query_features: Tensor, gallery_features: Tensor) -> Measures:
    """The measures of a data set whose queries have matches in the gallery in the main protocol."""
    assert data.query is not None and data.gallery is not None
    protocol = next(iter(data.protocols.values()))
    precision = torch.full((len(data.query),), torch.nan, dtype=torch.float64)
    ranks = torch.full((len(data.query),), -1)
    for comparison in protocol.trials[0]:
        rows = rows_with_match(data, comparison)
        if not len(rows):
            continue
        queries, images = comparison.query.unique(), comparison.gallery.unique()
        search = Search(data, rows, comparison.gallery, queries, images, protocol.distinct_identities)
        gallery = gallery_features[images.to(gallery_features.device)]
        first = 0
        for some in queries.split(max(1, 2**24 // len(images))):
            search.measure(first, 2 - 2 * query_features[some.to(query_features.device)] @ gallery.T)
            first += len(some)
        found, *columns = (torch.cat(blocks).cpu() for blocks in zip(*search.found, strict=True))
        precision[rows[found]] = columns[0]
        ranks[rows[found]] = columns[3 if protocol.distinct_identities else 1]
    counted = ranks[ranks >= 0]
    cmc = [float((counted <= rank).double().mean()) for rank in range(min(RANKS, len(data.gallery)))]
    same, different = histograms(data, query_features, gallery_features, BINS)
    return Measures(
        cmc, same, different, _cameras(data, precision, ranks), verify(data, query_features, gallery_features)
    )


def _cameras(data: ReIDData, precision: Tensor, ranks: Tensor) -> list[Camera]:
    assert data.query is not None
    cams = data.query.cams
    if cams is None or len(cams.unique()) < 2:
        return []
    found = []
    for camera in cams.unique().tolist():
        rows = ((cams == camera) & (ranks >= 0)).nonzero()[:, 0]
        if len(rows):
            rank1 = float((ranks[rows] == 0).double().mean())
            found.append(Camera(camera, len(rows), float(precision[rows].mean()), rank1))
    return found
