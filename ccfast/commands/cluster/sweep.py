"""``ccfast cluster --sweep``: the clusters at each eps, as a table and as a plot."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ccfast._errors import InputError
from ccfast._files import given_output, given_path, write_whole
from ccfast.commands.cluster.features import read_features
from ccfast.training.clustering.by_dbscan import hint_without_eps
from ccfast.training.clustering.out_of_core.rows import not_clustered
from ccfast.training.clustering.pseudo_labels import SEARCH_LIMIT
from ccfast.training.clustering.sweep import Trial, best, sweep
from ccfast.training.config import ClusterOptions, flag
from ccfast.training.device import choose_device

log = logging.getLogger(__name__)

#: The file formats of the plot.
PICTURES = (".png", ".svg", ".pdf")


def sweep_file(
    features: str, output: str, normalize: bool = False, device: str | None = None, **options: Any
) -> list[Trial]:
    """Cluster the rows of ``features``, a .npy file [N, D], at each eps; the plot goes to ``output``."""
    if unsuited := [flag(name) for name in ("memory_limit", "work_dir") if name in options]:
        raise InputError(f"{', '.join(unsuited)}: not with --sweep, which takes some of the rows")
    clustering = ClusterOptions(**options)
    target = given_picture(output, clustering)
    rows = read_features(given_path("FEATURES", features)).to(choose_device(device))
    try:
        return write_sweep(F.normalize(rows, dim=1) if normalize else rows, clustering, target)
    except ValueError as error:
        raise not_clustered(features, error, normalize) from error


def given_picture(output: str, options: ClusterOptions) -> Path:
    """The path of the plot; wrong options are an error before the work is done.

    Raises:
        InputError: an ending that is not in :data:`PICTURES`, or another clustering than DBSCAN.
    """
    require_dbscan(options)
    return given_output("--output", output, PICTURES)


def require_dbscan(options: ClusterOptions) -> None:
    """Refuse to sweep the eps of another clustering."""
    if options.cluster != "dbscan":
        raise InputError(f"--sweep: only DBSCAN has an eps; expected --cluster dbscan, got {options.cluster}")


def write_sweep(features: Tensor, options: ClusterOptions, target: Path) -> list[Trial]:
    """Cluster ``features`` [N, D] of unit norm at each eps; a table goes to the log, a plot to ``target``."""
    if len(features) > SEARCH_LIMIT:
        log.warning(
            "the sweep uses %s of the %s rows, chosen at random; all rows together are denser and give the same "
            "clusters at a smaller eps",
            f"{SEARCH_LIMIT:,}", f"{len(features):,}",
        )  # fmt: skip
    trials = sweep(features, options)
    chosen = best(trials)
    log.info("   eps  clusters   noise  largest  silhouette")
    for trial in trials:
        known = "none" if trial.silhouette is None else f"{trial.silhouette:.3f}"
        log.info("%6g  %8s  %5.1f%%  %6.1f%%  %10s%s", trial.eps, f"{trial.clusters:,}", 100 * trial.noise,
                 100 * trial.largest, known, "  <- --eps auto" if trial is chosen else "")  # fmt: skip
    if chosen is None:
        most = max(trial.clusters for trial in trials)
        log.warning("no eps gives two or more clusters%s", hint_without_eps(len(features), most, options))
    write_whole(target, _drawn(trials, chosen, target.suffix[1:]))
    log.info("picture in %s", target)
    return trials


def _drawn(trials: list[Trial], chosen: Trial | None, kind: str) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3), layout="constrained")
    clusters, shares, silhouettes = figure.subplots(1, 3)
    eps = [trial.eps for trial in trials]
    clusters.plot(eps, [trial.clusters for trial in trials], marker="o", markersize=3)
    clusters.set(title="clusters")
    shares.plot(eps, [100 * trial.noise for trial in trials], marker="o", markersize=3, label="in no cluster")
    shares.plot(
        eps, [100 * trial.largest for trial in trials], marker="s", markersize=3, label="in the largest cluster"
    )
    shares.set(title="images, %")
    shares.legend()
    known = [trial for trial in trials if trial.silhouette is not None]
    silhouettes.plot([trial.eps for trial in known], [trial.silhouette for trial in known], marker="o", markersize=3)
    silhouettes.set(title="silhouette of the clustered images")
    for axes in (clusters, shares, silhouettes):
        if chosen is not None:
            axes.axvline(chosen.eps, color="0.6", linestyle="--")
        axes.set(xlabel="eps", xlim=(min(eps) - 0.02, max(eps) + 0.02))
        axes.grid(alpha=0.3)
    drawn = io.BytesIO()
    figure.savefig(drawn, format=kind, dpi=120)
    return drawn.getvalue()
