"""What an epoch's record says of its clusters without knowing the identities."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ccfast.training.clustering.pseudo_labels import PseudoLabels, to_measure
from ccfast.training.clustering.silhouette import silhouette
from ccfast.training.evaluate import agreement
from ccfast.training.shard import Shard


def told_of(found: PseudoLabels, features: Tensor | Shard, last: Tensor | None) -> dict[str, Any]:
    """The numbers of ``found``, the clusters of ``features`` [N, D]; ``last`` [N] are the clusters of the epoch before.

    ``clusters``, ``noise`` (images in none), ``largest`` (images in the largest one), ``silhouette`` in [-1, 1], and,
    where they are known, DBSCAN's ``eps`` and ``last_ari``: the adjusted Rand index with ``last`` over the images that
    are in clusters of both; 1 where nothing has changed.
    """
    numbers: dict[str, Any] = {"clusters": found.clusters, "noise": found.noise, "largest": found.largest}
    some, rows = to_measure(features)
    numbers["silhouette"] = silhouette(some, found.labels[rows])
    if found.eps is not None:
        numbers["eps"] = found.eps
    if last is not None and len(last) == len(found.labels):
        labels, before = found.labels.cpu(), last.cpu()
        inside = before >= 0
        same = agreement(labels[inside], before[inside])
        numbers |= {"last_ari": same["ari"]} if same else {}
    return numbers
