"""Result types that the ops and their references share."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class RankingMetrics(NamedTuple):
    """What :func:`ccfast.evaluate_ranking` measures. All values lie in ``[0, 1]``.

    Attributes:
        mAP: mean over the valid queries of the average precision, scikit-learn's ``average_precision_score``.
        cmc: ``[max_rank]`` float64 on the CPU or GPU of the distances; ``cmc[r]`` is the share of valid queries whose
            first match is among the ``r + 1`` nearest gallery entries, so ``cmc[0]`` is rank-1 accuracy.
        mINP: mean inverse negative penalty (Ye et al., TPAMI 2021, eq. 8): mean over the valid queries of the number
            of matches divided by the rank of the last match.

    A query is valid when the gallery, after dropping the entries of its own identity and camera, holds its identity.

    Examples:
        >>> import torch, ccfast
        >>> metrics = ccfast.evaluate_ranking(torch.tensor([[0.1, 0.2]]), torch.tensor([5]), torch.tensor([5, 6]))
        >>> isinstance(metrics, ccfast.RankingMetrics), metrics.mINP
        (True, 1.0)
    """

    mAP: float
    cmc: Tensor
    mINP: float
