"""The arguments of every op, checked: an op and its reference both call this, so that one mistake has one message.

There is one function per public op, with its name and arguments; it returns them in the form that the kernels take. The
numbers themselves (finite, unit norm, labels in range) are checked by the compiled ops in C++, and by the references
with :mod:`ccfast._checks`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ccfast import _checks as checks

PRECISIONS = ("fp32", "fp16", "bf16")
REDUCTIONS = ("mean", "sum", "none")
#: Modes that need samples and labels; modes that also need groups (cameras).
MODES = ("sequential", "hardest", "mean", "last", "replace")
GROUP_MODES = ("group_first", "group_hardest", "group_mean", "group_harmonic")

ROWS_OF_FEATURES = "the number of rows of features"
LOWEST_INTEGER = -checks.LARGEST_INTEGER - 1


def knn(features: Any, k: Any, queries: Any, precision: str) -> tuple[Tensor, int, Tensor | None]:
    """The checked arguments of :func:`ccfast.knn`, without the precision."""
    features = checks.matrix("features", features, checks.HALF_OR_SINGLE).detach()
    k = checks.integer("k", k, low=1, high=len(features), high_name=ROWS_OF_FEATURES)
    checks.choice("precision", precision, PRECISIONS)
    if queries is None:
        return features, k, None
    queries = checks.matrix("queries", queries, checks.HALF_OR_SINGLE).detach()
    checks.same_columns(features=features, queries=queries)
    checks.same_device(features=features, queries=queries)
    return features, k, queries


def encoding(features: Any, k1: Any, k2: Any) -> tuple[Tensor, int, int]:
    """The checked arguments of :func:`ccfast.k_reciprocal_encoding`."""
    features = checks.unit_features("features", features)
    return features, *neighbours(features, k1, k2)


def neighbours(features: Any, k1: Any, k2: Any) -> tuple[int, int]:
    """``1 <= k1 <= N`` and ``1 <= k2 <= k1`` for ``features`` of N rows."""
    k1 = checks.integer("k1", k1, low=1, high=len(features), high_name=ROWS_OF_FEATURES)
    return k1, checks.integer("k2", k2, low=1, high=k1, high_name="k1")


def jaccard_distance(features: Any, k1: Any, k2: Any, max_distance: Any) -> tuple[Tensor, int, int, float | None]:
    """The checked arguments of :func:`ccfast.jaccard_distance`."""
    features, k1, k2 = encoding(features, k1, k2)
    if max_distance is not None:
        max_distance = checks.real("max_distance", max_distance, low=0, high=1, ends="[)")
    return features, k1, k2, max_distance


def dbscan(distances: Any, eps: Any, min_samples: Any) -> tuple[Tensor, float, int]:
    """The checked arguments of :func:`ccfast.dbscan`."""
    distances = checks.distances("distances", distances).detach()
    return distances, checks.real("eps", eps, low=0), checks.integer("min_samples", min_samples, low=1)


def infomap(features: Any, k1: Any, min_similarity: Any, min_cluster_size: Any) -> tuple[Tensor, int, float, int]:
    """The checked arguments of :func:`ccfast.infomap`; also checks the numbers of ``features``."""
    features = checks.unit_features("features", features)
    k1 = checks.integer("k1", k1, low=1, high=len(features), high_name=ROWS_OF_FEATURES)
    min_similarity = checks.real("min_similarity", min_similarity, low=-1, high=1)
    min_cluster_size = checks.integer("min_cluster_size", min_cluster_size, low=1)
    checks.unit_rows("features", features)
    return features, k1, min_similarity, min_cluster_size


def cluster_centroids(features: Any, labels: Any) -> tuple[Tensor, Tensor]:
    """The checked arguments of :func:`ccfast.cluster_centroids`."""
    features = checks.matrix("features", features, checks.SINGLE_OR_DOUBLE).detach()
    labels = checks.vector_of_integers("labels", labels, len(features), "features", features.device)
    checks.same_device(features=features, labels=labels)
    return features, labels


def update_memory_(
    memory: Any, features: Any, labels: Any, momentum: Any, mode: str, reference: Any, groups: Any
) -> tuple[Tensor, Tensor, Tensor, float, Tensor | None, Tensor | None]:
    """The checked arguments of :func:`ccfast.update_memory_`, without the mode."""
    checks.changed_in_place("memory", memory)
    memory = checks.matrix("memory", memory, checks.SINGLE_OR_DOUBLE).detach()
    features = checks.matrix("features", features, checks.SINGLE_OR_DOUBLE).detach()
    labels = checks.vector_of_integers("labels", labels, len(features), "features", features.device)
    checks.same_dtype(memory=memory, features=features)
    checks.same_columns(memory=memory, features=features)
    momentum = checks.real("momentum", momentum, low=0, high=1)
    checks.choice("mode", mode, MODES + GROUP_MODES)
    reference, groups = checks.update_extras(memory, labels, mode, reference, groups, GROUP_MODES)
    checks.same_device(memory=memory, features=features, labels=labels, reference=reference, groups=groups)
    return memory, features, labels, momentum, reference, groups


def centroid_contrastive_loss(
    features: Any,
    memory: Any,
    labels: Any,
    temperature: Any,
    reduction: str,
    label_smoothing: Any,
    ignore_index: Any,
    mask: Any,
    weights: Any,
) -> tuple[Tensor, Tensor, Tensor, float, Tensor | None, float, int, Tensor | None, Tensor | None]:
    """The checked arguments of :func:`ccfast.centroid_contrastive_loss`, without the reduction.

    The temperature becomes a number and None, or 1 and one value per column.
    """
    features = checks.matrix("features", features, checks.ANY_FLOAT)
    memory = checks.matrix("memory", memory, checks.ANY_FLOAT)
    checks.same_columns(features=features, memory=memory)
    rows, classes = features.shape[0], memory.shape[0]
    labels = checks.labels_or_weights("labels", labels, rows, classes, features.device)
    temperature, temperatures = checks.temperature("temperature", temperature, classes)
    mask, weights = checks.mask("mask", mask, rows, classes), checks.row_weights("weights", weights, rows)
    checks.same_device(
        features=features, memory=memory, labels=labels, temperature=temperatures, mask=mask, weights=weights
    )
    checks.choice("reduction", reduction, REDUCTIONS)
    label_smoothing = checks.real("label_smoothing", label_smoothing, low=0, high=1)
    ignore_index = checks.integer("ignore_index", ignore_index, low=LOWEST_INTEGER)
    return features, memory, labels, temperature, temperatures, label_smoothing, ignore_index, mask, weights


def memory_similarity(
    features: Any, memory: Any, on_backward: Callable[[Tensor], None] | None
) -> tuple[Tensor, Tensor]:
    """The checked arguments of :func:`ccfast.memory_similarity`: features in the dtype of the product, and memory."""
    features = checks.matrix("features", features, checks.ANY_FLOAT)
    memory = checks.matrix("memory", memory, checks.ANY_FLOAT)
    checks.same_columns(features=features, memory=memory)
    checks.same_device(features=features, memory=memory)
    if on_backward is not None and not callable(on_backward):
        raise TypeError(f"on_backward: expected a function, got {on_backward!r}")
    return checks.single_or_double(features), memory


def segment_mean(similarities: Any, labels: Any, num_segments: Any) -> tuple[Tensor, Tensor, int]:
    """The checked arguments of :func:`ccfast.segment_mean`: similarities in float32 or float64."""
    similarities = checks.matrix("similarities", similarities, checks.ANY_FLOAT)
    columns = similarities.shape[1]
    labels = checks.vector_of_integers("labels", labels, columns, "similarities.T", similarities.device)
    checks.same_device(similarities=similarities, labels=labels)
    num_segments = checks.integer("num_segments", num_segments, low=1)
    return checks.single_or_double(similarities), labels, num_segments


def set_contrastive_loss(
    logits: Any, positives: Any, keep: Any, multiplicity: Any
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """The checked arguments of :func:`ccfast.set_contrastive_loss`: logits in float32 or float64."""
    logits = checks.matrix("logits", logits, checks.ANY_FLOAT)
    positives = checks.mask("positives", checks.as_tensor("positives", positives), *logits.shape)
    keep = checks.mask("keep", keep, *logits.shape)
    if multiplicity is not None:
        multiplicity = checks.tensor("multiplicity", multiplicity, 2, checks.INTEGER)
        checks.same_shape(multiplicity=multiplicity, logits=logits)
    checks.same_device(logits=logits, positives=positives, keep=keep, multiplicity=multiplicity)
    return checks.single_or_double(logits), positives, keep, multiplicity


def enqueue_(queue: Any, pointer: Any, rows: Any) -> tuple[Tensor, Tensor | None, Tensor]:
    """The checked arguments of :func:`ccfast.enqueue_`."""
    checks.changed_in_place("queue", queue)
    queue = checks.matrix("queue", queue, checks.SINGLE_OR_DOUBLE).detach()
    rows = checks.matrix("rows", rows, checks.SINGLE_OR_DOUBLE).detach()
    checks.same_dtype(queue=queue, rows=rows)
    checks.same_columns(queue=queue, rows=rows)
    if len(rows) > len(queue):
        raise ValueError(f"rows: expected at most {len(queue)}, the rows of queue, got {len(rows)}")
    if pointer is not None:
        checks.changed_in_place("pointer", pointer)
        if pointer.dtype is not torch.int64:
            raise TypeError(f"pointer: expected dtype int64, got {str(pointer.dtype).removeprefix('torch.')}")
        if pointer.numel() != 1:
            raise ValueError(f"pointer: expected one value, got shape {tuple(pointer.shape)}")
    checks.same_device(queue=queue, pointer=pointer, rows=rows)
    return queue, pointer, rows


def sinkhorn(scores: Any, epsilon: Any, iterations: Any) -> tuple[Tensor, float, int]:
    """The checked arguments of :func:`ccfast.sinkhorn`, without the group: scores in float32 or float64."""
    scores = checks.matrix("scores", scores, checks.ANY_FLOAT).detach()
    epsilon = checks.real("epsilon", epsilon, low=0, ends="(]")
    return checks.single_or_double(scores), epsilon, checks.integer("iterations", iterations, low=0)


def k_reciprocal_rerank(
    query: Any, gallery: Any, k1: Any, k2: Any, lambda_value: Any
) -> tuple[Tensor, Tensor, int, int, float]:
    """The checked arguments of :func:`ccfast.k_reciprocal_rerank`."""
    query = checks.matrix("query", query, checks.SINGLE).detach()
    gallery = checks.matrix("gallery", gallery, checks.SINGLE).detach()
    checks.same_columns(query=query, gallery=gallery)
    checks.same_device(query=query, gallery=gallery)
    most = len(query) + len(gallery) - 1
    k1 = checks.integer("k1", k1, low=1, high=most, high_name="one less than the rows of query and gallery")
    k2 = checks.integer("k2", k2, low=1, high=k1, high_name="k1")
    return query, gallery, k1, k2, checks.real("lambda_value", lambda_value, low=0, high=1)


def evaluate_ranking(
    distances: Any,
    query_ids: Any,
    gallery_ids: Any,
    query_cams: Any,
    gallery_cams: Any,
    max_rank: Any,
    junk_id: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None, int, int | None]:
    """The checked arguments of :func:`ccfast.evaluate_ranking`: distances in float32 or float64."""
    distances = checks.matrix("distances", distances, checks.ANY_FLOAT).detach()
    queries, entries = distances.shape
    query_ids = checks.vector_of_integers("query_ids", query_ids, queries, "distances", distances.device)
    gallery_ids = checks.vector_of_integers("gallery_ids", gallery_ids, entries, "distances.T", distances.device)
    query_cams, gallery_cams = checks.cameras(query_cams, gallery_cams, distances)
    max_rank = checks.curve_length("max_rank", max_rank, distances)
    junk_id = None if junk_id is None else checks.integer("junk_id", junk_id, low=LOWEST_INTEGER)
    ids = {"query_ids": query_ids, "gallery_ids": gallery_ids}
    checks.same_device(distances=distances, **ids, query_cams=query_cams, gallery_cams=gallery_cams)
    return checks.single_or_double(distances), query_ids, gallery_ids, query_cams, gallery_cams, max_rank, junk_id
