"""The cluster of each image, as a table and as one folder of images per cluster."""

from __future__ import annotations

import copy
import csv
import io
import logging
import os
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import ccfast
from ccfast._errors import InputError
from ccfast._files import PREFIX, SUFFIX, as_unicode, given_path, printable
from ccfast._progress import progress
from ccfast._words import counted
from ccfast.data import Part
from ccfast.inference import COPY_MODES
from ccfast.training.clustering import clusterer
from ccfast.training.clustering.pseudo_labels import PseudoLabels, advice, chosen_eps, pseudo_labels
from ccfast.training.config import ClusterOptions
from ccfast.training.recipes import AUTO
from ccfast.training.stopwatch import Stopwatch

log = logging.getLogger(__name__)

COLUMNS = ("path", "cluster", "distance")

#: The folder of the images that are in no cluster.
IN_NONE = "no_cluster"

LINKS = COPY_MODES[0]


@dataclass(frozen=True)
class ImageClusters:
    """For each image its cluster and its distance from the cluster's centre, both on the CPU; and its feature.

    ``labels`` [N]: 0 .. clusters - 1, or -1 for images in no cluster. ``distances`` [N] float32: Euclidean distance
    between the unit feature and the mean of its cluster's features, scaled to unit norm; NaN for images in no cluster.
    ``features`` [N, D] of unit norm, on the device that computed them. ``eps``: the one that ``--eps auto`` chose, or
    None.
    """

    labels: Tensor
    distances: Tensor
    features: Tensor
    eps: float | None = None


def cluster_images(features: Tensor, options: ClusterOptions, watch: Stopwatch) -> ImageClusters:
    """Cluster ``features`` [N, D] of unit norm with ``options``."""
    found = pseudo_labels(features, options, watch)
    eps = found.eps if options.eps == AUTO else None
    return replace(with_distances(features, found.labels), eps=eps)


def with_distances(features: Tensor, labels: Tensor) -> ImageClusters:
    """The clusters ``labels`` [N] of ``features`` [N, D] of unit norm, with the distances from their centres."""
    distances = torch.full((len(features),), torch.nan, device=features.device)
    rows = (labels >= 0).nonzero()[:, 0]
    if len(rows):
        centres = ccfast.cluster_centroids(features, labels)
        for some in rows.split(2**16):
            distances[some] = (features[some] - centres[labels[some]]).norm(dim=1)
    return ImageClusters(labels.cpu(), distances.cpu(), features)


def fitting(options: Any, images: int, given: dict[str, Any]) -> Any:
    """``options`` with ``k1`` and ``k2`` limited to the number of images, unless the user gave them."""
    if options.k1 <= images or "k1" not in clusterer(options.cluster).uses:
        return options
    if given.get("k1") is not None:
        raise InputError(f"--k1: expected at most the {counted(images, 'image')}, got {options.k1}")
    there = "is" if images == 1 else "are"
    log.warning("using k1 = %d instead of %d: there %s %s", images, options.k1, there, counted(images, "image"))
    options = copy.copy(options)
    options.k1, options.k2 = images, min(options.k2, images)
    return options


def image_names(part: Part, name: str) -> list[str]:
    """The path of each image; ``name[row]`` for images that are not files."""
    paths = getattr(part.images, "paths", None)
    return [f"{name}[{row}]" for row in range(len(part))] if paths is None else list(paths)


def clusters_table(names: Sequence[str], found: ImageClusters) -> str:
    """A .csv file with :data:`COLUMNS`, one line per image in the order of ``names``.

    Images in no cluster have cluster -1 and no distance; bytes of names that are not UTF-8 are written as ``\\xff``.
    """
    file = io.StringIO()
    table = csv.writer(file)
    table.writerow(COLUMNS)
    for name, label, distance in zip(names, found.labels.tolist(), found.distances.tolist(), strict=True):
        table.writerow([as_unicode(name), label, "" if label < 0 else f"{distance:.6f}"])
    return file.getvalue()


def told(found: ImageClusters) -> str:
    """ "12 clusters of 3 to 40 images, 5 of 200 images in no cluster, eps 0.6 (auto)"."""
    labels, images = PseudoLabels(found.labels), counted(len(found.labels), "image")
    if not labels.clusters:
        return f"no cluster among {images}"
    sizes = torch.bincount(found.labels[found.labels >= 0])
    least, most = int(sizes.min()), int(sizes.max())
    least_to = "" if least == most else f"{least:,} to "
    return (
        f"{counted(labels.clusters, 'cluster')} of {least_to}{counted(most, 'image')}, "
        f"{labels.noise:,} of {images} in no cluster{'' if found.eps is None else f', {chosen_eps(found.eps)}'}"
    )


def advise(found: ImageClusters, features: Tensor, options: ClusterOptions) -> None:
    """If there are fewer than two clusters, log what to try."""
    labels = PseudoLabels(found.labels)
    if labels.clusters < 2 and len(features) > 1:
        log.warning("%s", advice(labels, features, options))


def given_new_folder(option: str, path: str | os.PathLike[str]) -> Path:
    """The path of a new folder, checked before the work is done.

    Raises:
        InputError: it exists and is not empty, it is a file, or it cannot be made.
    """
    target = given_path(option, path)
    if os.path.lexists(target) and not target.is_dir():
        raise InputError(f"{option}: expected a folder, got the file {target}")
    if target.is_dir() and any(target.iterdir()):
        raise InputError(f"{option}: expected a new or empty folder, got {target}, which is not empty")
    if not target.absolute().parent.is_dir():
        raise InputError(f"{option}: no such folder: {target.absolute().parent}; {target} cannot be made")
    if not os.access(target.absolute().parent, os.W_OK):
        raise InputError(f"{option}: {target} cannot be made: {target.absolute().parent} is not writable")
    return target


def copy_clusters(paths: Sequence[str], labels: Tensor, target: Path, how: str) -> None:
    """Make the folder ``target`` with one folder per cluster, and one for the images in no cluster.

    Files keep their names; a name that exists already gets a number. After a failure nothing is left of the folder.

    Args:
        how: "links" (symbolic ones, to the files themselves) or "copies".
    """
    width = len(str(max(0, int(labels.max()))))
    taken: set[str] = set()
    parent = target.absolute().parent
    unfinished = parent / f"{PREFIX}{secrets.token_hex(8)}{SUFFIX}"
    unfinished.mkdir()
    try:
        for path, label in progress(zip(paths, labels.tolist(), strict=True), how, len(paths)):
            folder = unfinished / (IN_NONE if label < 0 else f"cluster_{label:0{width}d}")
            folder.mkdir(exist_ok=True)
            place = folder / _free_name(folder.name, Path(path).name, taken)
            if how == LINKS:
                place.symlink_to(Path(path).resolve())
            else:
                shutil.copy2(path, place)
        if target.is_dir():
            target.rmdir()  # it is empty, as checked before
        unfinished.rename(target)
    except OSError as error:
        raise OSError(f"--copy-to: {target} cannot be made: {error.strerror or error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _free_name(folder: str, name: str, taken: set[str]) -> str:
    """``name``, or ``name`` with the first number that makes it unique, ignoring case, as some file systems do."""
    stem, suffix = Path(name).stem, Path(name).suffix
    number, found = 1, name
    while f"{folder}/{found}".lower() in taken:
        number += 1
        found = f"{stem}_{number}{suffix}"
    taken.add(f"{folder}/{found}".lower())
    return found


def warn_of_copies_among(images: str | Path, target: Path) -> None:
    """Warn if the next command would find the copies among the images."""
    if Path(images).is_dir() and target.resolve().is_relative_to(Path(images).resolve()):
        log.warning("--copy-to: %s is in %s; commands that read it will find these images twice", target,
                    printable(str(images)))  # fmt: skip
