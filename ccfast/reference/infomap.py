"""InfoMap clustering of features, the later clustering of Cluster Contrast."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ccfast import _arguments as arguments
from ccfast._infomap import infomap_labels
from ccfast.reference.knn import knn


def infomap(features: Tensor, k1: int = 15, min_similarity: float = 0.5, min_cluster_size: int = 5) -> Tensor:
    """Communities of the cosine kNN graph by the two-level directed map equation (Rosvall and Bergstrom, PNAS 2008).

    Each row links to those of its ``k1`` nearest rows (counting itself, but without a link to itself) whose cosine
    similarity is at least ``min_similarity``; the weight is the similarity.

    Args:
        features: ``[N, D]`` float32, rows of unit norm within 1e-3; or float16 or bfloat16, within 1e-2, which are
            normalised again in float32.
        k1: neighbours, in ``[1, N]``.
        min_similarity: lowest cosine similarity of a link, in ``[-1, 1]``; links without positive weight never count.
        min_cluster_size: smaller clusters are noise, at least 1.

    Returns:
        ``[N]`` int64 labels on the device of ``features``: clusters in the order of their lowest member; -1 for noise:
        rows without links and members of clusters that are too small. The same input always gives the same labels.

    Raises:
        ImportError: the optional package ``infomap`` is not installed.
        TypeError: not a tensor, another dtype.
        ValueError: wrong shape, empty, a number out of range, non-finite or un-normalised rows.
    """
    features, k1, min_similarity, min_cluster_size = arguments.infomap(features, k1, min_similarity, min_cluster_size)
    rank = knn(features, k1)[0].cpu().numpy()
    points = features.double().cpu().numpy()
    similarities = np.stack([points[row] @ points[i] for i, row in enumerate(rank)])
    sources = np.broadcast_to(np.arange(len(rank))[:, None], rank.shape)
    linked = similarities >= min_similarity  # infomap_labels drops links from a row to itself
    labels = infomap_labels(sources[linked], rank[linked], similarities[linked], len(rank), min_cluster_size)
    return torch.from_numpy(labels).to(features.device)
