"""Modules: state, and calls to the ops."""

from ccfast.nn.cluster_memory import ClusterMemory

__all__ = ["ClusterMemory"]
