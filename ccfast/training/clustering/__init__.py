"""The clusterings for pseudo-labels: one class per value of ``--cluster``."""

from __future__ import annotations

from ccfast.training.clustering.registry import CLUSTERINGS, clusterer

__all__ = ["CLUSTERINGS", "clusterer"]
