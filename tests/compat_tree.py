"""A small repository of the shape of the authors': its definitions raise, so a call shows which implementation ran."""

from __future__ import annotations

from pathlib import Path

_JACCARD = "target_features, k1=20, k2=6, print_flag=True, search_option=0, use_float16=False"
_LABELS = "query_ids=None, gallery_ids=None, query_cams=None, gallery_cams=None"
_CMC = "topk=100, separate_camera_set=False, single_gallery_shot=False, first_match_break=False"
_ITS_OWN = 'raise RuntimeError("the repository\'s own code ran")'


def function(name: str, parameters: str) -> str:
    """The source of a function that raises."""
    return f"def {name}({parameters}):\n    {_ITS_OWN}\n\n\n"


CLUSTER_MEMORY = f"""\
import torch


{function("cm", "inputs, indexes, features, momentum=0.5")}\
{function("cm_hard", "inputs, indexes, features, momentum=0.5")}\
class ClusterMemory(torch.nn.Module):
    def __init__(self, num_features, num_samples, temp=0.05, momentum=0.2, use_hard=False):
        {_ITS_OWN}

    def forward(self, inputs, targets):
        {_ITS_OWN}
"""

SAMPLER = f"""\
from torch.utils.data import Sampler


class RandomMultipleGallerySampler(Sampler):
    def __init__(self, data_source, num_instances=4):
        {_ITS_OWN}

    def __iter__(self):
        {_ITS_OWN}
"""

FAISS_UTILS = "import faiss\n\n\n" + function(
    "search_raw_array_pytorch", "res, xb, xq, k, D=None, I=None, metric=faiss.METRIC_L2"
)
FAISS_RERANK = "import faiss\nfrom .faiss_utils import search_raw_array_pytorch\n\n\n" + function(
    "compute_jaccard_distance", _JACCARD
)
RANKING = function("cmc", f"distmat, {_LABELS}, {_CMC}") + function("mean_ap", f"distmat, {_LABELS}")
RERANK = function("re_ranking", "q_g_dist, q_q_dist, g_g_dist, k1=20, k2=6, lambda_value=0.3")
EVALUATORS = (
    "from .evaluation_metrics import cmc, mean_ap\nfrom .utils.rerank import re_ranking\n\n\n"
    + function("pairwise_distance", "features, query=None, gallery=None")
    + function(
        "evaluate_all",
        f"query_features, gallery_features, distmat, query=None, gallery=None, {_LABELS}, "
        "cmc_topk=(1, 5, 10), cmc_flag=False",
    )
)

#: One short epoch: pseudo-labels, a sampler, a step, an evaluation.
TRAIN = """\
import sys

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.cluster import DBSCAN

from contrast import evaluators
from contrast.models.cm import ClusterMemory
from contrast.utils.data.sampler import RandomMultipleGallerySampler
from contrast.utils.faiss_rerank import compute_jaccard_distance
import helper

torch.manual_seed(0)
identities = torch.arange(120) % 6
centres = F.normalize(torch.randn(6, 32), dim=1)
features = F.normalize(centres[identities] + 0.05 * torch.randn(120, 32), dim=1)

distances = compute_jaccard_distance(features, k1=20, k2=6)
labels = DBSCAN(eps=0.6, min_samples=4, metric="precomputed").fit_predict(distances)
print("clusters", len(set(labels.tolist())))

source = [(str(i), int(label), i // 40) for i, label in enumerate(labels)]
batch = list(RandomMultipleGallerySampler(source, num_instances=4))
memory = ClusterMemory(32, 6, temp=0.05, momentum=0.1)
memory.features = F.normalize(torch.stack([features[labels == c].mean(0) for c in range(6)]), dim=1)
before = memory.features.clone()
inputs = features[batch].requires_grad_()
loss = memory(inputs, torch.from_numpy(labels[batch]))
print("moved before backward", not torch.equal(memory.features, before))
loss.backward()
print("moved by backward", not torch.equal(memory.features, before))

by_name = {str(i): feature for i, feature in enumerate(features)}
entries = [(str(i), int(identities[i]), i // 40) for i in range(120)]
query, gallery = entries[:30], entries[30:]
squared, x, y = evaluators.pairwise_distance(by_name, query, gallery)
evaluators.evaluate_all(x, y, squared, query=query, gallery=gallery, cmc_flag=True)
squares = [evaluators.pairwise_distance(by_name, side, side)[0].numpy() for side in (query, gallery)]
print("re-ranked", evaluators.re_ranking(squared.numpy(), *squares).shape)

print("argv", sys.argv, "name", __name__, "helper", helper.WHERE)
sys.exit(3)
"""

FILES = {
    "contrast/__init__.py": "",
    "contrast/models/__init__.py": "",
    "contrast/models/cm.py": CLUSTER_MEMORY,
    "contrast/utils/__init__.py": "",
    "contrast/utils/data/__init__.py": "",
    "contrast/utils/data/sampler.py": SAMPLER,
    "contrast/utils/faiss_utils.py": FAISS_UTILS,
    "contrast/utils/faiss_rerank.py": FAISS_RERANK,
    "contrast/utils/rerank.py": RERANK,
    "contrast/evaluation_metrics/__init__.py": "from .ranking import cmc, mean_ap\n",
    "contrast/evaluation_metrics/ranking.py": RANKING,
    "contrast/evaluators.py": EVALUATORS,
    "examples/helper.py": "WHERE = 'beside the script'\n",
    "examples/train.py": TRAIN,
}


def write_tree(folder: Path, **changed: str) -> Path:
    """The repository below ``folder``; ``changed`` maps the stem of a file to other contents."""
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(changed.get(path.stem, content))
    return folder
