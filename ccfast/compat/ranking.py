"""The authors' evaluation: mean average precision, CMC, and what they print."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ccfast.compat._inputs import array, length, matrix
from ccfast.compat.forms import takes_all_forms
from ccfast.ops.retrieval import rank_queries
from ccfast.reference.retrieval import average_precision

_SHOTS = 10  # draws of one gallery image for each identity, with single_gallery_shot


class _Entries(NamedTuple):
    """A distance matrix with the identities and cameras of both sides, as integers from 0."""

    distances: np.ndarray
    query_ids: np.ndarray
    gallery_ids: np.ndarray
    query_cams: np.ndarray
    gallery_cams: np.ndarray


@takes_all_forms
def mean_ap(
    distmat: Any,
    query_ids: Any = None,
    gallery_ids: Any = None,
    query_cams: Any = None,
    gallery_cams: Any = None,
    regdb: bool = False,
) -> float:
    """Mean of scikit-learn's average precision over the queries that have a match.

    Gallery entries with the query's identity and camera are left out.

    Args:
        distmat: ``[Q, G]`` distances, a tensor or an array; smaller is nearer.
        query_ids: ``[Q]``; None: every query its own index.
        gallery_ids: ``[G]``; None: every entry its own index.
        query_cams: ``[Q]``; None: a camera that no entry of the gallery has.
        gallery_cams: ``[G]``; None: the same for queries.
        regdb: leave out the entries with another identity and another camera instead (ADCA's rule for RegDB).

    Returns:
        The mean, in ``[0, 1]``.

    Raises:
        RuntimeError: no query has a match.
        TypeError: distances that are not numbers.
        ValueError: an empty matrix, different lengths, NaN.
    """
    entries = _entries(distmat, query_ids, gallery_ids, query_cams, gallery_cams)
    if regdb:
        found = _ranked(entries, separate_camera_set=False, regdb=True)
        precisions = np.array([average_precision(query.distances, query.matches) for query in found])
    else:
        precision, first_match = _measured(entries)
        precisions = precision[first_match >= 0]
    if len(precisions) == 0:
        raise RuntimeError("No valid query")
    return float(np.mean(precisions))


@takes_all_forms
def cmc(
    distmat: Any,
    query_ids: Any = None,
    gallery_ids: Any = None,
    query_cams: Any = None,
    gallery_cams: Any = None,
    topk: int = 100,
    separate_camera_set: bool = False,
    single_gallery_shot: bool = False,
    first_match_break: bool = False,
    regdb: bool = False,
) -> np.ndarray:
    """Cumulative matching characteristic with the options of open-reid.

    Args:
        distmat: as for :func:`mean_ap`.
        query_ids: as for :func:`mean_ap`.
        gallery_ids: as for :func:`mean_ap`.
        query_cams: as for :func:`mean_ap`.
        gallery_cams: as for :func:`mean_ap`.
        topk: length of the curve, from 1 to a million or G.
        separate_camera_set: leave out every gallery entry of the query's camera.
        single_gallery_shot: ten times, draw one gallery entry per identity with ``numpy.random.choice``.
        first_match_break: count only the first match (Market-1501). Otherwise, a query with several matches adds an
            equal share at the rank of each match, minus the matches before it (CUHK03). With ``single_gallery_shot``
            each of the ten draws counts in full, as in the authors' code.
        regdb: as for :func:`mean_ap`.

    Returns:
        ``[topk]`` float64.

    Raises:
        RuntimeError: no query has a match.
        TypeError, ValueError: as :func:`mean_ap`; ``topk`` out of range.
    """
    entries = _entries(distmat, query_ids, gallery_ids, query_cams, gallery_cams)
    topk = length("topk", topk, entries.distances.shape[1])
    if first_match_break and not (separate_camera_set or single_gallery_shot or regdb):
        first_match = _measured(entries)[1]
        ranks = [first_match[first_match >= 0]]
        counts, queries = _counted(ranks, [1.0], topk), len(ranks[0])
    else:
        ranks, shares, queries = [], [], 0
        for query in _ranked(entries, separate_camera_set, regdb):
            shots = _shots(query) if single_gallery_shot else [np.flatnonzero(query.matches)]
            for places in shots:
                places = places[:1] if first_match_break else places - np.arange(len(places))
                ranks.append(places)
                shares.append(1.0 if first_match_break else 1 / (len(places) * len(shots)))
            queries += 1
        counts = _counted(ranks, shares, topk)
    if queries == 0:
        raise RuntimeError("No valid query")
    return counts.cumsum() / queries


@takes_all_forms
def evaluate_all(
    query_features: Any,
    gallery_features: Any,
    distmat: Any,
    query: Sequence[tuple[Any, Any, Any]] | None = None,
    gallery: Sequence[tuple[Any, Any, Any]] | None = None,
    query_ids: Any = None,
    gallery_ids: Any = None,
    query_cams: Any = None,
    gallery_cams: Any = None,
    cmc_topk: Sequence[int] = (1, 5, 10),
    cmc_flag: bool = False,
    regdb: bool = False,
) -> float | tuple[np.ndarray, float]:
    """Print mAP and, with ``cmc_flag``, CMC by Market-1501's protocol; return them.

    Args:
        query_features: not used.
        gallery_features: not used.
        distmat: ``[Q, G]`` distances.
        query: list of (name, identity, camera), or None; then the four arguments after ``gallery`` are used.
        gallery: the same for the gallery.
        query_ids: ``[Q]`` identities.
        gallery_ids: ``[G]`` identities.
        query_cams: ``[Q]`` cameras.
        gallery_cams: ``[G]`` cameras.
        cmc_topk: the ranks to print.
        cmc_flag: also print and return CMC.
        regdb: as for :func:`mean_ap`.

    Returns:
        mAP; with ``cmc_flag``, the curve ``[100]`` and mAP.

    Raises:
        RuntimeError, TypeError, ValueError: as in :func:`mean_ap`; neither lists nor identities and cameras.
    """
    if query is not None and gallery is not None:
        query_ids, query_cams = _ids_and_cameras("query", query)
        gallery_ids, gallery_cams = _ids_and_cameras("gallery", gallery)
    else:
        given = {"query_ids": query_ids, "gallery_ids": gallery_ids}
        given |= {"query_cams": query_cams, "gallery_cams": gallery_cams}
        for name, value in given.items():
            if value is None:
                raise ValueError(f"{name}: expected identities and cameras where query or gallery is None, got None")
    labels = (query_ids, gallery_ids, query_cams, gallery_cams)
    mAP = mean_ap(distmat, *labels, regdb=regdb)
    print(f"Mean AP: {mAP:4.1%}")
    if not cmc_flag:
        return mAP
    curve = cmc(distmat, *labels, first_match_break=True, regdb=regdb)
    print("CMC Scores:")
    for rank in cmc_topk:
        print(f"  top-{rank:<4}{curve[rank - 1]:12.1%}")
    return curve, mAP


def pairwise_distance(
    features: Mapping[Any, Tensor],
    query: Sequence[tuple[Any, Any, Any]] | None = None,
    gallery: Sequence[tuple[Any, Any, Any]] | None = None,
) -> Tensor | tuple[Tensor, np.ndarray, np.ndarray]:
    """**Squared** Euclidean distances of queries to gallery.

    Args:
        features: the feature of every file name.
        query: list of (name, identity, camera), or None together with ``gallery``.
        gallery: the same for the gallery.

    Returns:
        ``(distances [Q, G], query features, gallery features)``, a tensor and two arrays. Without lists, only the
        distances ``[N, N]``, ``2 |x|^2 - 2 <x, y>`` with the row's own norm, as in the authors' code: correct only if
        all norms are equal.

    Raises:
        KeyError: a name without a feature.
        ValueError: no feature, or only one of the two lists.
    """
    if query is None and gallery is None:
        x = _stacked("features", features, features)
        return 2 * x.square().sum(1, keepdim=True) - 2 * (x @ x.T)
    if query is None or gallery is None:
        missing = "query" if query is None else "gallery"
        raise ValueError(f"{missing}: expected both query and gallery, or None for both, got None")
    x = _stacked("query", features, (name for name, _, _ in query))
    y = _stacked("gallery", features, (name for name, _, _ in gallery))
    squares = x.square().sum(1, keepdim=True) + y.square().sum(1)
    return torch.addmm(squares, x, y.T, alpha=-2), x.cpu().numpy(), y.cpu().numpy()


def _stacked(name: str, features: Mapping[Any, Tensor], keys: Any) -> Tensor:
    chosen = [torch.as_tensor(features[key]).detach().flatten() for key in keys]
    if not chosen:
        raise ValueError(f"{name}: expected at least one image, got none")
    return torch.stack(chosen)


def _ids_and_cameras(name: str, entries: Sequence[tuple[Any, Any, Any]]) -> tuple[list[Any], list[Any]]:
    if any(len(entry) != 3 for entry in entries):
        raise ValueError(f"{name}: expected triples (name, identity, camera)")
    return [identity for _, identity, _ in entries], [camera for _, _, camera in entries]


def _entries(distmat: Any, query_ids: Any, gallery_ids: Any, query_cams: Any, gallery_cams: Any) -> _Entries:
    distances = matrix("distmat", distmat)
    if np.isnan(distances).any():
        raise ValueError("distmat: expected numbers, got NaN")
    queries, gallery = distances.shape
    # The defaults of open-reid: identities are indices, and no query shares a camera with the gallery.
    ids = _numbered(
        "query_ids", np.arange(queries) if query_ids is None else query_ids, queries,
        "gallery_ids", np.arange(gallery) if gallery_ids is None else gallery_ids, gallery,
    )  # fmt: skip
    cameras = _numbered(
        "query_cams", np.zeros(queries, int) if query_cams is None else query_cams, queries,
        "gallery_cams", np.ones(gallery, int) if gallery_cams is None else gallery_cams, gallery,
    )  # fmt: skip
    return _Entries(distances, *ids, *cameras)


def _numbered(
    first_name: str, first: Any, first_length: int, second_name: str, second: Any, second_length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Integers that are equal if the values, which may be names, are equal."""
    values = []
    for name, value, size in ((first_name, first, first_length), (second_name, second, second_length)):
        value = array(name, value)
        if value.shape != (size,):
            raise ValueError(f"{name}: expected shape {(size,)} beside distmat, got shape {value.shape}")
        values.append(value)
    numbers = np.unique(np.concatenate(values), return_inverse=True)[1].reshape(-1)
    return numbers[:first_length], numbers[first_length:]


def _measured(entries: _Entries) -> tuple[np.ndarray, np.ndarray]:
    """Average precision and first match (-1: none) of every query."""
    distances, query_ids, gallery_ids, query_cams, gallery_cams = (
        torch.from_numpy(np.ascontiguousarray(part)) for part in entries
    )
    precision, first_match, _ = rank_queries(distances, query_ids, gallery_ids, query_cams, gallery_cams)
    return precision.numpy(), first_match.numpy()


class _Query(NamedTuple):
    """The gallery entries that count for a query, nearest first."""

    distances: np.ndarray
    ids: np.ndarray
    matches: np.ndarray


def _ranked(entries: _Entries, separate_camera_set: bool, regdb: bool) -> Iterator[_Query]:
    """Every query that has a match."""
    for distances, identity, camera in zip(entries.distances, entries.query_ids, entries.query_cams, strict=True):
        same, same_camera = entries.gallery_ids == identity, entries.gallery_cams == camera
        kept = (same | same_camera) if regdb else ~(same & same_camera)
        if separate_camera_set:
            kept &= ~same_camera
        if not (same & kept).any():
            continue
        places = np.flatnonzero(kept)
        places = places[np.argsort(distances[places], kind="stable")]
        yield _Query(distances[places], entries.gallery_ids[places], same[places])


def _shots(query: _Query) -> list[np.ndarray]:
    """For each draw of one entry per identity, the rank of the match among the drawn entries."""
    members: dict[int, list[int]] = {}
    for place, identity in enumerate(query.ids.tolist()):
        members.setdefault(identity, []).append(place)
    match = int(query.ids[query.matches.argmax()])
    shots = []
    for _ in range(_SHOTS):
        drawn = {identity: np.random.choice(places) for identity, places in members.items()}
        nearer = sum(place < drawn[match] for place in drawn.values())
        shots.append(np.array([nearer]))
    return shots


def _counted(ranks: Sequence[np.ndarray], shares: Sequence[float], topk: int) -> np.ndarray:
    """The sum of the shares at each rank below ``topk``."""
    counts = np.zeros(topk)
    for places, share in zip(ranks, shares, strict=True):
        np.add.at(counts, places[places < topk], share)
    return counts
