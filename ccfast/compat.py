"""The names, argument order and defaults of the authors' published code, so that scripts run with one import changed.

Instead of ``from clustercontrast.utils.faiss_rerank import compute_jaccard_distance`` and
``from clustercontrast.models.cm import ClusterMemory``::

    from ccfast.compat import ClusterMemory, compute_jaccard_distance
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from ccfast import _checks as checks
from ccfast.nn import ClusterMemory as _ClusterMemory
from ccfast.ops.jaccard import jaccard_distance


def compute_jaccard_distance(
    target_features: Any,
    k1: int = 20,
    k2: int = 6,
    print_flag: bool = True,
    search_option: int = 0,
    use_float16: bool = False,
) -> np.ndarray:
    """Dense Jaccard distance of k-reciprocal encodings as a NumPy array.

    Args:
        target_features: ``[N, D]`` rows of unit norm.
        k1: size of the neighbour lists, the row itself included.
        k2: rows averaged by the query expansion; 1 skips it.
        print_flag: print that the distance is computed, and the seconds it took.
        search_option: 0 to 3, which faiss index the authors' code used. They find the same neighbours; here one exact
            search serves all, on the device of ``target_features``.
        use_float16: give the result as float16; it is computed in float32 all the same.

    Returns:
        ``[N, N]`` float32, or float16.

    Raises:
        TypeError, ValueError: as :func:`ccfast.jaccard_distance`; ``search_option`` out of range.
    """
    checks.integer("search_option", search_option, low=0, high=3)
    start = time.time()
    if print_flag:
        print("Computing jaccard distance...")
    features = checks.as_tensor("target_features", target_features)
    distance = jaccard_distance(features.float() if features.is_floating_point() else features, k1, k2)
    if print_flag:
        print(f"Jaccard distance computing time cost: {time.time() - start}")
    return distance.to(torch.float16 if use_float16 else torch.float32).cpu().numpy()


class ClusterMemory(_ClusterMemory):
    """:class:`ccfast.nn.ClusterMemory` with the authors' arguments, which moves when theirs does: in backward.

    Args:
        num_features: D.
        num_samples: number of clusters C.
        temp: temperature of the loss.
        momentum: share of the old row that stays in an update.
        use_hard: update from the hardest sample of each cluster (CM_Hard) instead of all in turn (CM).

    ``temp``, ``momentum`` and ``use_hard`` are read in each call, and may be changed between calls.
    """

    def __init__(
        self,
        num_features: int,
        num_samples: int,
        temp: float = 0.05,
        momentum: float = 0.2,
        use_hard: bool = False,
    ) -> None:
        super().__init__(num_features, num_samples, temp, momentum, update="backward")
        self.num_features = num_features
        self.num_samples = num_samples
        self.use_hard = use_hard

    @property
    def temp(self) -> float:
        """Temperature of the loss."""
        return self.temperature

    @temp.setter
    def temp(self, value: float) -> None:
        self.temperature = value

    @property
    def use_hard(self) -> bool:
        """Whether the hardest sample of each cluster updates the memory."""
        return self.mode == "hardest"

    @use_hard.setter
    def use_hard(self, value: bool) -> None:
        self.mode = "hardest" if value else "sequential"
