"""Every op of ccfast in plain PyTorch and NumPy: the reference of the tests and the baseline of the benchmarks.

The functions have the names, signatures, checks and results of the compiled ops. They are straightforward
implementations of the papers, written to be readable and correct, without the compiled extension.
"""

from __future__ import annotations

from ccfast.reference.contrastive import centroid_contrastive_loss
from ccfast.reference.dbscan import dbscan
from ccfast.reference.infomap import infomap
from ccfast.reference.jaccard import jaccard_distance, k_reciprocal_encoding
from ccfast.reference.knn import knn
from ccfast.reference.memory import cluster_centroids, update_memory_
from ccfast.reference.queue import enqueue_
from ccfast.reference.retrieval import evaluate_ranking, k_reciprocal_rerank
from ccfast.reference.sets import set_contrastive_loss
from ccfast.reference.similarity import memory_similarity, segment_mean
from ccfast.reference.sinkhorn import sinkhorn

__all__ = [
    "centroid_contrastive_loss",
    "cluster_centroids",
    "dbscan",
    "enqueue_",
    "evaluate_ranking",
    "infomap",
    "jaccard_distance",
    "k_reciprocal_encoding",
    "k_reciprocal_rerank",
    "knn",
    "memory_similarity",
    "segment_mean",
    "set_contrastive_loss",
    "sinkhorn",
    "update_memory_",
]
