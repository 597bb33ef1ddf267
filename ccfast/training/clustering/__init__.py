"""The clusterings that pseudo-labels come from: a class for each value of ``--cluster``."""

from __future__ import annotations

from ccfast.training.clustering.registry import CLUSTERINGS, clusterer

__all__ = ["CLUSTERINGS", "clusterer"]
