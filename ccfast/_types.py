"""Result types of the ops and their references."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class RankingMetrics(NamedTuple):
    """The result of :func:`ccfast.evaluate_ranking`. All values are in ``[0, 1]``.

    Attributes:
        mAP: mean over the valid queries of the average precision, as in scikit-learn's ``average_precision_score``.
        cmc: ``[max_rank]`` float64 on the CPU or GPU of the distances; ``cmc[r]`` is the share of valid queries whose
            first match is among the ``r + 1`` nearest gallery entries, so ``cmc[0]`` is rank-1 accuracy.
        mINP: mean inverse negative penalty (Ye et al., TPAMI 2021, eq. 8): mean over the valid queries of the number
            of matches divided by the rank of the last match.

    A query is valid if the gallery has its identity, after entries with its identity and camera are left out.

    Examples:
        >>> import torch, ccfast
        >>> metrics = ccfast.evaluate_ranking(torch.tensor([[0.1, 0.2]]), torch.tensor([5]), torch.tensor([5, 6]))
        >>> isinstance(metrics, ccfast.RankingMetrics), metrics.mINP
        (True, 1.0)
    """

    mAP: float
    cmc: Tensor
    mINP: float
