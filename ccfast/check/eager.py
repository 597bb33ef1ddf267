"""The ops in eager PyTorch, in their usual form: without ccfast's kernels and without checks of the input.

Every function has the name of its op and those of its arguments that are needed here. The distances are dense: these
functions hold several ``[N, N]`` matrices.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def knn(features: Tensor, k: int, dtype: torch.dtype = torch.float32, block: int = 2048) -> Tensor:
    """Products and topk, by blocks of rows: the indices for unit rows; near ties come in any order."""
    operand = features.to(dtype)
    return torch.cat([(rows @ operand.T).topk(k).indices for rows in operand.split(block)])


def refine_neighbours(features: Tensor, candidates: Tensor, k: int, block: int = 128) -> Tensor:
    """Distances to the candidates and topk, by blocks of rows: the indices; near ties come in any order."""
    nearest = []
    for rows, chosen in zip(features.split(block), candidates.split(block), strict=True):
        distances = (features[chosen] - rows[:, None]).square().sum(2)
        nearest.append(chosen.gather(1, distances.topk(k, largest=False).indices))
    return torch.cat(nearest)


def k_reciprocal_encoding(features: Tensor, k1: int, k2: int) -> Tensor:
    """V as a dense matrix, from masks and products of masks."""
    similarity = features @ features.T
    return _encoding(similarity.topk(k1).indices, 2 * similarity - 2, round(k1 / 2) + 1, k2)


def jaccard_distance(features: Tensor, k1: int, k2: int) -> Tensor:
    """The sums of minima row by row, over the columns of the row."""
    v = k_reciprocal_encoding(features, k1, k2)
    return _jaccard(v, v)


def dbscan(distances: Tensor, eps: float, min_samples: int = 4) -> Tensor:
    """The lowest core of each cluster, propagated from core to core."""
    within = distances <= eps
    core = within.sum(1) >= min_samples
    rows = torch.arange(len(core), dtype=torch.int32, device=core.device)
    none = torch.full_like(rows, len(core))
    links = within & core
    lowest, before = torch.where(core, rows, none), none
    while not torch.equal(lowest, before):
        before = lowest
        near = torch.where(links, lowest, none[:1]).amin(1)
        lowest = torch.where(core, near, none)
        lowest = torch.where(core, lowest[lowest.clamp_max(len(core) - 1).long()], none)
    owner = torch.where(core, lowest, torch.where(links, lowest, none[:1]).amin(1))
    numbers = torch.full((len(core) + 1,), -1, device=core.device)
    first = lowest[core].unique().long()
    numbers[first] = torch.arange(len(first), device=core.device)
    return numbers[owner.long()]


def cluster_centroids(features: Tensor, labels: Tensor) -> Tensor:
    """Sums by index_add, normalised."""
    kept = labels >= 0
    sums = features.new_zeros(int(labels.max()) + 1, features.shape[1])
    return F.normalize(sums.index_add_(0, labels[kept], features[kept]))


def update_memory_(memory: Tensor, features: Tensor, labels: Tensor, momentum: float = 0.1) -> None:
    """The sequential update: one sample after the other."""
    for x, y in zip(features, labels, strict=True):
        memory[y] = momentum * memory[y] + (1 - momentum) * x
        memory[y] /= memory[y].norm()


def centroid_contrastive_loss(features: Tensor, memory: Tensor, labels: Tensor, temperature: float = 0.05) -> Tensor:
    """Normalise, product, cross-entropy."""
    return F.cross_entropy(F.normalize(features) @ memory.T / temperature, labels)


def segment_mean(similarities: Tensor, labels: Tensor, segments: int) -> tuple[Tensor, Tensor]:
    """As in SpCL's code: rows are added up by label, then divided by the counts."""
    sums = torch.zeros(segments, len(similarities), device=labels.device).index_add(0, labels, similarities.T)
    counts = torch.zeros(segments, device=labels.device).index_add(0, labels, torch.ones(len(labels)).to(sums))
    return (sums / counts.clamp_min(1)[:, None]).T.contiguous(), counts > 0


def set_contrastive_loss(
    logits: Tensor, positives: Tensor, keep: Tensor | None = None, *, multiplicity: Tensor | None = None
) -> Tensor:
    """Masked log softmax; a column of multiplicity w is logit + log w, and 0 for rows without a positive."""
    counted = logits if multiplicity is None else logits + multiplicity.to(logits.dtype).log()
    if keep is not None:
        counted = counted.masked_fill(~keep, -torch.inf)
    count = positives.sum(1)
    losses = counted.logsumexp(1) - logits.masked_fill(~positives, 0).sum(1) / count.clamp_min(1)
    return torch.where(count > 0, losses, 0)


def enqueue_(queue: Tensor, pointer: Tensor | None, rows: Tensor) -> None:
    """The ring of MoCo's code; without a pointer the queue of SwAV's code, newest rows first."""
    if pointer is None:
        queue[len(rows) :] = queue[: -len(rows)].clone()
        queue[: len(rows)] = rows
        return
    at = int(pointer)
    queue[at : at + len(rows)] = rows
    pointer[0] = (at + len(rows)) % len(queue)


def sinkhorn(scores: Tensor, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """As in SwAV's code, on the transposed matrix."""
    q = torch.exp(scores / epsilon).T
    q /= q.sum()
    prototypes, samples = q.shape
    for _ in range(iterations):
        q /= q.sum(dim=1, keepdim=True)
        q /= prototypes
        q /= q.sum(dim=0, keepdim=True)
        q /= samples
    q *= samples
    return q.T


def k_reciprocal_rerank(query: Tensor, gallery: Tensor, k1: int, k2: int, lambda_value: float = 0.3) -> Tensor:
    """All distances of all rows, and the encoding of them."""
    features = torch.cat([query, gallery])
    distances = torch.cdist(features, features).square_()
    rank = distances.topk(k1 + 1, largest=False).indices
    distances /= distances.amax(1, keepdim=True)
    v = _encoding(rank, -distances, round(k1 / 2) + 1, k2)
    queries = len(query)
    return (1 - lambda_value) * _jaccard(v[:queries], v[queries:]) + lambda_value * distances[:queries, queries:]


def evaluate_ranking(
    distances: Tensor, query_ids: Tensor, gallery_ids: Tensor, query_cams: Tensor, gallery_cams: Tensor
) -> tuple[Tensor, Tensor]:
    """(mAP, CMC to rank 50), equal distances in the order of their gallery index."""
    order = distances.argsort(dim=1, stable=True)
    match = gallery_ids[order] == query_ids[:, None]
    kept = ~(match & (gallery_cams[order] == query_cams[:, None]))
    match &= kept
    valid = match.any(1)
    match, kept = match[valid], kept[valid]
    rank, hits = kept.cumsum(1), match.cumsum(1)
    precision = (match * hits / rank.clamp_min(1)).double().sum(1) / hits[:, -1]
    first = rank.gather(1, match.int().argmax(1, keepdim=True))
    return precision.mean(), (first <= torch.arange(1, 51, device=first.device)).double().mean(0)


def _encoding(rank: Tensor, scores: Tensor, half: int, k2: int) -> Tensor:
    """V from neighbour lists ``[N, k1]`` and scores; the weights are the softmax of the scores."""
    full, halved = _reciprocal(rank), _reciprocal(rank[:, :half])
    own, other = full.float(), halved.float()
    joins = full & (3 * (own @ other.T) > 2 * other.sum(1))
    expanded = full | (joins.float() @ other > 0)
    v = scores.masked_fill(~expanded, -torch.inf).softmax(1)
    return v if k2 == 1 else sum(v[rank[:, place]] for place in range(k2)) / k2


def _reciprocal(rank: Tensor) -> Tensor:
    listed = torch.zeros(len(rank), len(rank), dtype=torch.bool, device=rank.device).scatter_(1, rank, True)
    return listed & listed.T


def _jaccard(rows: Tensor, others: Tensor) -> Tensor:
    overlaps, by_column = rows.new_empty(len(rows), len(others)), others.T.contiguous()
    for row, overlap in zip(rows, overlaps, strict=True):
        columns = row.nonzero()[:, 0]
        overlap.copy_(torch.minimum(row[columns, None], by_column[columns]).sum(0))
    return (1 - overlaps / (2 - overlaps)).clamp_min(0)
