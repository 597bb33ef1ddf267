"""The public names of ccfast. Importing them loads torch and the compiled extension, and registers the ops."""

from ccfast import compat, nn, reference
from ccfast._load import build_info
from ccfast._types import RankingMetrics
from ccfast.inference import load_encoder
from ccfast.interop import from_cupy, from_scipy, to_cupy, to_scipy
from ccfast.ops.candidates import refine_neighbours
from ccfast.ops.contrastive import centroid_contrastive_loss
from ccfast.ops.dbscan import dbscan
from ccfast.ops.infomap import infomap
from ccfast.ops.jaccard import jaccard_distance, k_reciprocal_encoding
from ccfast.ops.knn import knn
from ccfast.ops.memory import cluster_centroids, update_memory_
from ccfast.ops.queue import enqueue_
from ccfast.ops.retrieval import evaluate_ranking, k_reciprocal_rerank
from ccfast.ops.sets import set_contrastive_loss
from ccfast.ops.similarity import memory_similarity, segment_mean
from ccfast.ops.sinkhorn import sinkhorn

__version__ = build_info()["version"]

__all__ = [
    "RankingMetrics",
    "build_info",
    "centroid_contrastive_loss",
    "cluster_centroids",
    "compat",
    "dbscan",
    "enqueue_",
    "evaluate_ranking",
    "from_cupy",
    "from_scipy",
    "infomap",
    "jaccard_distance",
    "k_reciprocal_encoding",
    "k_reciprocal_rerank",
    "knn",
    "load_encoder",
    "memory_similarity",
    "nn",
    "reference",
    "refine_neighbours",
    "segment_mean",
    "set_contrastive_loss",
    "sinkhorn",
    "to_cupy",
    "to_scipy",
    "update_memory_",
]
