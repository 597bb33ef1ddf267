"""``ccfast cluster``: pseudo-labels of features in a .npy file."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ccfast._errors import InputError, is_out_of_memory
from ccfast._files import array_content, given_output, given_path, write_whole
from ccfast.training.config import ClusterOptions
from ccfast.training.device import choose_device
from ccfast.training.pseudo_labels import advice, pseudo_labels, warn_of_structural_tie
from ccfast.training.stopwatch import Stopwatch

log = logging.getLogger(__name__)


def cluster_file(
    features: str, output: str, normalize: bool = False, device: str | None = None, **options: Any
) -> Tensor:
    """Cluster the rows of ``features``, a .npy file [N, D], as :class:`ClusterOptions` say; labels go to ``output``."""
    clustering = ClusterOptions(**options)
    target = given_output("--output", output)
    warn_of_structural_tie(clustering)
    where = choose_device(device)
    rows = read_features(given_path("FEATURES", features))
    if normalize:
        rows = F.normalize(rows, dim=1)
    log.info("%s: %s rows of %s values; device %s", features, f"{len(rows):,}", f"{rows.shape[1]:,}", where)
    rows = rows.to(where)
    watch = _Announcing(where)
    try:
        found = pseudo_labels(rows, clustering, watch)
    except ValueError as error:
        hint = "" if normalize else " (--normalize scales rows to unit norm)"
        raise InputError(f"{features}: {error}{hint if 'norm' in str(error) else ''}") from error
    write_whole(target, array_content(found.labels.cpu().numpy()))
    log.info(
        "%s rows: %s clusters, %s noise; %.2f s; labels in %s",
        *(f"{count:,}" for count in (len(rows), found.clusters, found.noise)), sum(watch.seconds.values()), output,
    )  # fmt: skip
    if found.clusters < 2:
        log.warning("%s", advice(found, rows, clustering))
    return found.labels


class _Announcing(Stopwatch):
    """Says what is done next: with many rows nothing else is heard for a while."""

    TITLES: ClassVar[dict[str, str]] = {
        "infomap": "searching neighbours and finding clusters by InfoMap",
        "jaccard": "searching neighbours and measuring Jaccard distances",
        "dbscan": "finding clusters by DBSCAN",
    }

    def __call__(self, stage: str) -> AbstractContextManager[None]:
        """Announce ``stage`` and time it."""
        log.info("%s ...", self.TITLES[stage])
        return super().__call__(stage)


def read_features(path: Path) -> Tensor:
    """A float matrix [N, D] as float32."""
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except Exception as error:  # NumPy raises whatever the bytes lead it to
        if is_out_of_memory(error):
            raise
        raise InputError(f"{path}: cannot be read as a .npy file: {error}") from error
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind != "f":
        got = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else "an archive (.npz)"
        raise InputError(f"{path}: expected a matrix of floats [N, D], got {got}")
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
