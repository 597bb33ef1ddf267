"""The names, argument order, defaults and results of the authors' published code.

A script runs with one import changed: instead of ``from clustercontrast.utils.faiss_rerank import
compute_jaccard_distance`` and ``from clustercontrast.models.cm import ClusterMemory``::

    from ccfast.compat import ClusterMemory, compute_jaccard_distance

or unedited, by ``python -m ccfast.compat SCRIPT ARGS...``.
"""

from ccfast.compat.cluster_memory import ClusterMemory
from ccfast.compat.infomap import cluster_by_infomap, get_dist_nbr
from ccfast.compat.jaccard import compute_jaccard_distance
from ccfast.compat.memory_product import cm, cm_hard
from ccfast.compat.ranking import cmc, evaluate_all, mean_ap, pairwise_distance
from ccfast.compat.rerank import re_ranking, re_ranking_paper
from ccfast.compat.samplers import RandomMultipleGallerySampler, RandomMultipleGallerySamplerNoCam
from ccfast.compat.search import compute_ranked_list, search_raw_array_pytorch

__all__ = [
    "ClusterMemory",
    "RandomMultipleGallerySampler",
    "RandomMultipleGallerySamplerNoCam",
    "cluster_by_infomap",
    "cm",
    "cm_hard",
    "cmc",
    "compute_jaccard_distance",
    "compute_ranked_list",
    "evaluate_all",
    "get_dist_nbr",
    "mean_ap",
    "pairwise_distance",
    "re_ranking",
    "re_ranking_paper",
    "search_raw_array_pytorch",
]
