"""``ccfast cluster``: pseudo-labels for features in a .npy file."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ccfast._errors import InputError, RunError
from ccfast._files import array_content, given_output, given_path, keep_inputs, write_whole
from ccfast._words import counted
from ccfast.commands.cluster.by_blocks import cluster_by_blocks
from ccfast.training.clustering.out_of_core.rows import load_matrix, not_clustered, opened
from ccfast.training.clustering.pseudo_labels import (
    PseudoLabels,
    advice,
    chosen_eps,
    pseudo_labels,
    warn_of_giant,
    warn_of_structural_tie,
)
from ccfast.training.config import ClusterOptions
from ccfast.training.device import choose_device
from ccfast.training.group import Group, join, leave
from ccfast.training.recipes import AUTO
from ccfast.training.shard import Shard
from ccfast.training.stopwatch import Stopwatch

log = logging.getLogger(__name__)


def cluster_file(
    features: str,
    output: str,
    normalize: bool = False,
    device: str | None = None,
    memory_limit: str | None = None,
    work_dir: str | None = None,
    **options: Any,
) -> Tensor:
    """Cluster the rows of ``features``, a .npy file [N, D], with :class:`ClusterOptions`; labels go to ``output``.

    ``memory_limit``: cluster by blocks within this memory (:mod:`ccfast.training.clustering.out_of_core`), with files
    in ``work_dir``.
    """
    if memory_limit is not None:
        return cluster_by_blocks(features, output, memory_limit, work_dir, normalize, device, ClusterOptions(**options))
    if work_dir is not None:
        raise InputError("--work-dir: only with --memory-limit")
    clustering = ClusterOptions(**options)
    target = given_output("--output", output)
    keep_inputs("--output", target, {"FEATURES.npy": features})
    warn_of_structural_tie(clustering)
    group, on_device = join(choose_device(device))
    try:
        found = _clustered(features, output, target, normalize, clustering, group, on_device)
        leave(group)
    except RuntimeError as error:
        if not group.lost(error):
            raise
        reason = str(error).splitlines()[0]
        raise RunError(
            f"another process has ended ({reason}); nothing was written; run the same command again"
        ) from error
    return found.labels


def _clustered(
    features: str,
    output: str,
    target: Path,
    normalize: bool,
    clustering: ClusterOptions,
    group: Group,
    on_device: torch.device,
) -> PseudoLabels:
    """The labels of the rows of ``features``, written to ``target`` by the main process; each process has a share."""
    path = given_path("FEATURES", features)
    rows = read_features(path) if group.size == 1 else read_share(path, group)
    if normalize:
        rows = F.normalize(rows, dim=1)
    count = len(rows) if group.size == 1 else len(opened(path))
    log.info("%s: %s of %s values; device %s", features, counted(count, "row"), f"{rows.shape[1]:,}", on_device)
    rows = rows.to(on_device)
    given = rows if group.size == 1 else Shard(rows, count, group)
    watch = Announcing(on_device)
    try:
        found = pseudo_labels(given, clustering, watch, group)
    except ValueError as error:
        raise not_clustered(features, error, normalize) from error
    group.from_main(lambda: write_whole(target, array_content(found.as_classes(clustering).cpu().numpy())))
    log.info(
        "%s: %s, %s noise%s; %.2f s; labels in %s",
        counted(count, "row"), counted(found.clusters, "cluster"), f"{found.noise:,}",
        f", {chosen_eps(found.eps)}" if clustering.eps == AUTO and found.eps is not None else "",
        sum(watch.seconds.values()), output,
    )  # fmt: skip
    if found.clusters < 2:
        log.warning("%s", advice(found, given, clustering))
    warn_of_giant(found, given, clustering)
    return found


class Announcing(Stopwatch):
    """Logs the first start of each stage, because a stage with many rows can take long."""

    TITLES: ClassVar[dict[str, str]] = {
        "infomap": "searching neighbours and finding clusters by InfoMap",
        "jaccard": "searching neighbours and measuring Jaccard distances",
        "dbscan": "finding clusters by DBSCAN",
        "kmeans": "finding clusters by k-means",
        "hdbscan": "finding clusters by HDBSCAN",
    }

    def __call__(self, stage: str) -> AbstractContextManager[None]:
        """Announce ``stage`` and time it."""
        if stage not in self.seconds:
            log.info("%s ...", self.TITLES[stage])
        return super().__call__(stage)


def read_features(path: Path) -> Tensor:
    """A float matrix [N, D] as float32."""
    return torch.from_numpy(np.ascontiguousarray(load_matrix(path), dtype=np.float32))


def read_share(path: Path, group: Group) -> Tensor:
    """:func:`read_features` of this process's share of the rows: nothing else is read."""
    array = opened(path)
    return torch.from_numpy(np.array(array[group.slice_of(len(array))], np.float32, order="C"))
