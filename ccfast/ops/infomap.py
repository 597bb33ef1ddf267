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
    """InfoMap labels of the directed graph of nearest neighbours (Cluster Contrast's better clustering).

    Every row links to those of its ``k1`` nearest whose cosine similarity is at least ``min_similarity``, with the
    similarity as weight; the two-level map equation (Rosvall and Bergstrom, PNAS 2008) partitions the graph.

    Args:
        features: ``[N, D]`` float32, rows of unit norm within 1e-3; or float16 or bfloat16, within 1e-2, whose rows are
            normalised again in float32.
        k1: size of the neighbour lists, the row itself included, ``1 <= k1 <= N``.
        min_similarity: in ``[-1, 1]``.
        min_cluster_size: smaller clusters are noise, at least 1.
        neighbours: the nearest rows of every row, where another search has found them; None: :func:`ccfast.knn` finds
            them. A pair ``(indices, distances)`` as it returns it: ``[N, k1]`` integers and floating-point numbers
            (columns beyond ``k1`` are not looked at), every row its own first neighbour, none twice, distances squared
            Euclidean and ascending. :func:`ccfast.refine_neighbours` makes such a pair of what an index has found.

    Returns:
        ``[N]`` int64 labels on the device of ``features``: clusters 0, 1, ... in the order of their lowest member;
        noise is -1, as are rows without a link.

    Raises:
        ImportError: the optional package ``infomap`` is missing (``pip install 'ccfast[infomap]'``).
        TypeError: a tensor of another dtype or layout.
        ValueError: an empty input, an argument out of range, non-finite or un-normalised rows (the first is named),
            ``neighbours`` of another kind than described.

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
    """The labels [N] from every row's neighbours [N, k1] and their squared distances, as :func:`knn` gives them."""
    similarity = 1 - distances / 2
    rows = torch.arange(len(neighbours), device=neighbours.device).unsqueeze(1).expand_as(neighbours)
    linked = (neighbours != rows) & (similarity >= min_similarity)
    sources, targets, weights = (part[linked].cpu().numpy() for part in (rows, neighbours, similarity))
    labels = infomap_labels(sources, targets, weights, len(neighbours), min_cluster_size)
    return torch.from_numpy(labels).to(neighbours.device)
