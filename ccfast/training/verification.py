"""Same or not: how well one threshold on the similarity separates pairs of the same identity from other pairs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ccfast.data import Comparison, ReIDData

#: False positive rates at which a threshold is reported.
RATES = (1e-2, 1e-3, 1e-4)

#: Number of similarities in memory at the same time: 64 MiB.
SIMILARITIES = 2**24


@dataclass(frozen=True)
class Threshold:
    """Pairs with a similarity of at least ``threshold`` count as same, and so does a share ``fpr`` of different pairs.

    ``tpr``: the share of same pairs that count as same.
    """

    fpr: float
    tpr: float
    threshold: float


@dataclass(frozen=True)
class Verification:
    """ROC AUC, the thresholds for :data:`RATES`, and the numbers of same and of different pairs."""

    auc: float
    thresholds: tuple[Threshold, ...]
    same: int
    different: int


def verify(data: ReIDData, query_features: Tensor, gallery_features: Tensor) -> Verification | None:
    """Compare every query with every gallery image of the main protocol, by cosine similarity.

    Pairs of the same identity and camera are left out, as in the ranking. AUC and rates equal those of scikit-learn's
    ``roc_auc_score`` and ``roc_curve`` on all pairs. Memory holds only the similarities of one block of queries, those
    of the same pairs, and the largest hundredth of the others. None if there are no same or no different pairs.

    Args:
        data: a data set whose query and gallery have identities.
        query_features, gallery_features: [Q, D] and [G, D], rows of unit norm.
    """
    comparisons = [comparison for trial in next(iter(data.protocols.values())).trials for comparison in trial]
    blocks = list(_blocks(data, comparisons, query_features, gallery_features, same=True))
    same = torch.cat(blocks).sort().values if blocks else query_features.new_empty(0)
    pairs = sum(len(comparison.query) * len(comparison.gallery) for comparison in comparisons)
    left_out = sum(_left_out(data, comparison) for comparison in comparisons)
    different = pairs - left_out - len(same)
    if not len(same) or not different:
        return None
    others = _Others(same, _allowed(max(RATES), different) + 1)
    for block in _blocks(data, comparisons, query_features, gallery_features, same=False):
        others.add(block)
    largest = others.largest()
    thresholds = tuple(_threshold(rate, same, largest, different) for rate in RATES)
    return Verification(others.twice_the_area / (2 * len(same) * different), thresholds, len(same), different)


def histograms(
    data: ReIDData, query_features: Tensor, gallery_features: Tensor, bins: int
) -> tuple[list[float], list[float]]:
    """The shares of the same and of the different pairs of :func:`verify` whose squared Euclidean distance is in each
    of ``bins`` equal parts of [0, 4]; zeros if there are no pairs."""
    comparisons = [comparison for trial in next(iter(data.protocols.values())).trials for comparison in trial]
    shares = []
    for same in (True, False):
        counts = torch.zeros(bins, dtype=torch.float64)
        for block in _blocks(data, comparisons, query_features, gallery_features, same=same):
            places = ((1 - block) / 2 * bins).long().clamp(0, bins - 1)
            counts += torch.bincount(places, minlength=bins).cpu()
        shares.append((counts / counts.sum().clamp(min=1)).tolist())
    return shares[0], shares[1]


class _Others:
    """Similarities of different pairs, block by block: the area under the curve, and the ``count`` largest ones."""

    def __init__(self, same: Tensor, count: int) -> None:
        self.same, self.count, self.kept = same, count, same.new_empty(0)
        self.twice_the_area = 0  # in pairs
        self.lowest = -math.inf

    def add(self, block: Tensor) -> None:
        """For each same pair, count the different pairs below it, and half of the equal ones."""
        block = block.sort().values
        below = torch.searchsorted(block, self.same)
        not_above = torch.searchsorted(block, self.same, right=True)
        self.twice_the_area += int((below + not_above).sum())
        block = block[-self.count :]
        self.kept = torch.cat([self.kept, block[block > self.lowest]])
        if len(self.kept) > 2 * self.count:
            self.kept = self.kept.topk(self.count, sorted=False).values
            self.lowest = float(self.kept.min())

    def largest(self) -> Tensor:
        """The largest similarities, in descending order."""
        return self.kept.topk(min(self.count, len(self.kept))).values


def _threshold(rate: float, same: Tensor, largest: Tensor, different: int) -> Threshold:
    """The smallest threshold that at most ``rate`` of the different pairs reach."""
    allowed = _allowed(rate, different)
    limit = largest[allowed] if allowed < len(largest) else largest.new_tensor(-math.inf)
    reached = same[same > limit]
    others = largest[largest > limit]
    above = torch.cat([reached[:1], others[-1:]])
    threshold = above.min() if len(above) else torch.nextafter(limit, limit.new_tensor(math.inf))
    return Threshold(rate, len(reached) / len(same), float(threshold))


def _allowed(rate: float, different: int) -> int:
    """The largest number of different pairs with a share of at most ``rate``; in integers, as 0.001 is not binary."""
    return different // round(1 / rate)


def _blocks(
    data: ReIDData, comparisons: list[Comparison], query_features: Tensor, gallery_features: Tensor, *, same: bool
) -> Iterator[Tensor]:
    """The similarities of the same pairs, or of the different ones, for one block of queries at a time."""
    assert data.query is not None and data.gallery is not None
    assert data.query.ids is not None and data.gallery.ids is not None
    device = query_features.device
    for comparison in comparisons:
        columns = comparison.gallery
        gallery = gallery_features[columns.to(device)]
        gallery_ids = data.gallery.ids[columns]
        gallery_cams = None if data.gallery.cams is None else data.gallery.cams[columns]
        for rows in comparison.query.split(max(1, SIMILARITIES // len(columns))):
            chosen = data.query.ids[rows][:, None] == gallery_ids
            if not same:
                chosen = ~chosen
            elif data.query.cams is not None and gallery_cams is not None:
                chosen &= data.query.cams[rows][:, None] != gallery_cams
            yield (query_features[rows.to(device)] @ gallery.T)[chosen.to(device)]


def _left_out(data: ReIDData, comparison: Comparison) -> int:
    """The number of pairs with the same identity and camera."""
    assert data.query is not None and data.gallery is not None
    if data.query.cams is None or data.gallery.cams is None:
        return 0
    query, gallery = (
        torch.stack([part.ids[rows], part.cams[rows]], 1)
        for part, rows in ((data.query, comparison.query), (data.gallery, comparison.gallery))
    )
    kinds, kind = torch.cat([query, gallery]).unique(dim=0, return_inverse=True)
    counts = [torch.bincount(part, minlength=len(kinds)) for part in kind.split([len(query), len(gallery)])]
    return int((counts[0] * counts[1]).sum())
