"""From the value of ``--cluster`` to a class."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ccfast.training.clustering.base import Clusterer

#: The class of each clustering. They import torch, which the help of the command line must not do.
CLUSTERINGS: dict[str, str] = {
    "dbscan": "ccfast.training.clustering.by_dbscan:ByDBSCAN",
    "infomap": "ccfast.training.clustering.by_infomap:ByInfoMap",
    "kmeans": "ccfast.training.clustering.by_kmeans:ByKMeans",
    "hdbscan": "ccfast.training.clustering.by_hdbscan:ByHDBSCAN",
}


def clusterer(name: str) -> type[Clusterer]:
    """The class of the clustering ``name``, one of :data:`CLUSTERINGS`."""
    module, _, found = CLUSTERINGS[name].partition(":")
    return getattr(importlib.import_module(module), found)
