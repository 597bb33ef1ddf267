"""InfoMap clustering of the cosine neighbour graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ccfast import _arguments as arguments
from ccfast._infomap import infomap_labels
from ccfast.ops.given_neighbours import given_neighbours
from ccfast.ops.knn import knn


def infomap(
    features: Any,
    k1: int = 15,
    min_similarity: float = 0.5,
    min_cluster_size: int = 5,
    *,
    neighbours: tuple[Any, Any] | None = None,
) -> Tensor:
    """InfoMap labels of the directed graph of nearest neighbours (the later clustering of Cluster Contrast).

    Every row links to those of its ``k1`` nearest rows whose cosine similarity is at least ``min_similarity``; the
    similarity is the weight. The two-level map equation (Rosvall and Bergstrom, PNAS 2008) partitions the graph.

    Args:
        features: ``[N, D]`` float32, rows of unit norm within 1e-3; or float16 or bfloat16, within 1e-2, which are
            normalised again in float32.
        k1: size of the neighbour lists, counting the row itself, ``1 <= k1 <= N``.
        min_similarity: in ``[-1, 1]``.
        min_cluster_size: smaller clusters are noise, at least 1.
        neighbours: the nearest rows of every row from another search; None: use :func:`ccfast.knn`. A pair ``(indices,
            distances)`` in its format: ``[N, k1]`` integers and floating-point numbers (further columns are ignored),
            every row its own first neighbour, no duplicates, distances squared Euclidean and ascending.
            :func:`ccfast.refine_neighbours` makes such a pair from the output of an index.

    Returns:
        ``[N]`` int64 labels on the device of ``features``: clusters 0, 1, ... in the order of their lowest member; -1
        for noise and for rows without a link.

    Raises:
        ImportError: the optional package ``infomap`` is missing (``pip install 'ccfast[infomap]'``).
        TypeError: a tensor of another dtype or layout.
        ValueError: an empty input, an argument out of range, non-finite or un-normalised rows (the message names the
            first), ``neighbours`` in another format.

    Examples:
        >>> import torch, ccfast
        >>> features = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
        >>> features = torch.nn.functional.normalize(features, dim=1)
        >>> ccfast.infomap(features, k1=2, min_cluster_size=2).tolist()
        [0, 0, 1, 1]
    """
    features, k1, min_similarity, min_cluster_size = arguments.infomap(features, k1, min_similarity, min_cluster_size)
    found = knn(features, k1) if neighbours is None else given_neighbours(neighbours, features, k1)
    return infomap_of_neighbours(*found, min_similarity, min_cluster_size)


def infomap_of_neighbours(
    neighbours: Tensor, distances: Tensor, min_similarity: float, min_cluster_size: int
) -> Tensor:
    """The labels [N] from every row's neighbours [N, k1] and their squared distances, in the format of :func:`knn`."""
    similarity = 1 - distances / 2
    rows = torch.arange(len(neighbours), device=neighbours.device).unsqueeze(1).expand_as(neighbours)
    linked = (neighbours != rows) & (similarity >= min_similarity)
    sources, targets, weights = (part[linked].cpu().numpy() for part in (rows, neighbours, similarity))
    labels = infomap_labels(sources, targets, weights, len(neighbours), min_cluster_size)
    return torch.from_numpy(labels).to(neighbours.device)
