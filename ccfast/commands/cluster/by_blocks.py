"""``ccfast cluster --memory-limit``: clusters a file of features by blocks and writes a file of labels."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from torch import Tensor

from ccfast._errors import InputError, Interrupted, RunError
from ccfast._files import array_content, given_output, given_path, keep_inputs, write_whole
from ccfast._words import counted
from ccfast.training.clustering.out_of_core.budget import parse_size
from ccfast.training.clustering.out_of_core.rows import not_clustered, opened
from ccfast.training.clustering.out_of_core.stages import Stages, peak
from ccfast.training.clustering.out_of_core.work_folder import WorkFolder, subject_of
from ccfast.training.clustering.pseudo_labels import (
    SEARCH_LIMIT,
    PseudoLabels,
    advice,
    some_rows,
    warn_of_structural_tie,
)
from ccfast.training.config import AUTO, ClusterOptions
from ccfast.training.device import choose_device
from ccfast.training.group import processes_started

log = logging.getLogger(__name__)


def cluster_by_blocks(
    features: str,
    output: str,
    memory_limit: str,
    work_dir: str | None,
    normalize: bool,
    device: str | None,
    options: ClusterOptions,
) -> Tensor:
    """Labels [N] of the rows of a .npy file within ``memory_limit``, equal to those computed in memory on a CPU.

    With a GPU, blocks are searched there; the rest is computed on the CPU.

    Raises:
        InputError: wrong options or data, or a limit that is too low.
        RunError: the work cannot continue (a full disk); finished blocks are kept, and the same call continues.
    """
    if options.cluster != "dbscan":
        raise InputError(f"--memory-limit: expected --cluster dbscan, got {options.cluster}, which needs all links")
    if options.eps == AUTO or options.noise != "drop":
        raise InputError(
            f"--memory-limit: expected a number for --eps and --noise drop, got {options.eps} and {options.noise}"
        )
    if processes_started() > 1:
        raise InputError("--memory-limit: expected one process; of several, each holds its share of the rows")
    limit = parse_size("--memory-limit", memory_limit)
    target = given_output("--output", output)
    path = given_path("FEATURES", features)
    keep_inputs("--output", target, {"FEATURES.npy": path})
    folder = target.with_name(f"{target.name}.work") if work_dir is None else given_path("--work-dir", work_dir)
    warn_of_structural_tie(options)
    on = choose_device("cpu" if device is None else device)
    count, dim = opened(path).shape
    if options.k1 > count:
        raise InputError(f"{path}: k1: expected at most {count} (the number of rows of features), got {options.k1}")
    log.info("%s: %s of %s values; device %s; by blocks in %s MB", features, counted(count, "row"), f"{dim:,}", on,
             f"{limit >> 20:,}")  # fmt: skip
    start = time.perf_counter()
    with WorkFolder(folder, _subject(path, normalize, options)) as work:
        try:
            stages = Stages(path, options, normalize, limit, work, on)
            found = PseudoLabels(_labels(stages, path, normalize, folder))
        except InputError:
            if not work.done("search"):  # nothing expensive is lost
                work.remove()
            raise
        write_whole(target, array_content(found.labels.numpy()))
        log.info(
            "%s: %s, %s noise; %.2f s, at most %s MB; labels in %s",
            counted(count, "row"), counted(found.clusters, "cluster"), f"{found.noise:,}",
            time.perf_counter() - start, peak(), output,
        )  # fmt: skip
        if found.clusters < 2:
            log.warning("%s", advice(found, stages.rows.take(some_rows(count, SEARCH_LIMIT)), options))
        work.remove()
    return found.labels


def _subject(path: Path, normalize: bool, options: ClusterOptions) -> dict[str, object]:
    """The options on which the files in the work folder depend; min_samples affects DBSCAN only."""
    names = ("eps", "k1", "k2", "neighbours", "faiss_index", "faiss_search")
    return subject_of(path, normalize=normalize, **{name: getattr(options, name) for name in names})


def _labels(stages: Stages, path: Path, normalize: bool, folder: Path) -> Tensor:
    """The labels; errors name the problem in the file, or say that the same command continues."""
    advice_to_resume = f"finished blocks are kept in {folder}; the same command continues from there"
    try:
        return stages.labels()
    except InputError:
        raise
    except ValueError as error:
        raise not_clustered(path, error, normalize) from error
    except OSError as error:
        raise RunError(f"{error}; {advice_to_resume}") from error
    except KeyboardInterrupt as error:
        raise Interrupted(f"interrupted; {advice_to_resume}") from error
