"""A map of the training images: their features in two dimensions, by UMAP if it is installed, or else by PCA."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: Number of images on the map, and number of images from which the dimensions are computed.
POINTS, FITTED = 300, 4_000


@dataclass(frozen=True)
class Point:
    """A row of the training part, its position in [0, 1] x [0, 1], and its cluster."""

    row: int
    x: float
    y: float
    cluster: int


@dataclass(frozen=True)
class Map:
    """The points, and the method of their positions."""

    method: str
    points: list[Point]


def embedding_map(features: Tensor, labels: Tensor) -> Map | None:
    """At most :data:`POINTS` of the images, evenly spaced; None for fewer than three.

    Args:
        features: [N, D].
        labels: [N] on the CPU.
    """
    if len(features) < 3:
        return None
    step = -(-len(features) // POINTS)
    rows = torch.arange(0, len(features), step)
    method, places = _umap(features) or ("PCA", _pca(features))
    places = places[rows]
    low, high = places.amin(0), places.amax(0)
    places = (places - low) / (high - low).clamp(min=1e-12)
    return Map(
        method,
        [Point(row, x, y, int(labels[row])) for row, (x, y) in zip(rows.tolist(), places.tolist(), strict=True)],
    )


def _pca(features: Tensor) -> Tensor:
    """Coordinates [N, 2] along the two directions of the largest variance; their signs are fixed."""
    some = features[:: -(-len(features) // FITTED)].double()
    mean = some.mean(0)
    directions = torch.linalg.svd(some - mean, full_matrices=False).Vh[:2].T
    largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
    places = (features.double() - mean) @ (directions * largest.sign())
    return torch.nn.functional.pad(places, (0, 2 - places.shape[1])).cpu()


def _umap(features: Tensor) -> tuple[str, Tensor] | None:
    try:
        from umap import UMAP
    except ImportError:
        return None
    if len(features) < 16:  # its neighbours
        return None
    places = UMAP(n_components=2, metric="cosine", random_state=0).fit_transform(features.cpu().numpy())
    return "UMAP", torch.from_numpy(places).double()
