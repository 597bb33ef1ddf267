"""The numbers about clusters in an epoch's record that need no identities."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ccfast.training.clustering.pseudo_labels import PseudoLabels, to_measure
from ccfast.training.clustering.silhouette import silhouette
from ccfast.training.evaluate import agreement
from ccfast.training.shard import Shard


def numbers_of(found: PseudoLabels, features: Tensor | Shard, last: Tensor | None) -> dict[str, Any]:
    """The numbers of ``found``, the clusters of ``features`` [N, D]; ``last`` [N] are the previous epoch's clusters.

    ``clusters``, ``noise`` (images in no cluster), ``largest`` (images in the largest cluster), ``silhouette`` in
    [-1, 1], and, if known, DBSCAN's ``eps`` and ``last_ari``: the adjusted Rand index with ``last`` over the images
    that are in clusters in both; 1 means no change.
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
