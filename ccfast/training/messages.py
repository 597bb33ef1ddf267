"""The messages of a run: its log, and the plot at its end."""

from __future__ import annotations

import io
import logging
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch

from ccfast._files import write_whole
from ccfast._words import counted
from ccfast.data import ReIDData
from ccfast.models import Encoder
from ccfast.training.clustering.pseudo_labels import chosen_eps, warn_of_structural_tie
from ccfast.training.config import TrainConfig
from ccfast.training.recipes import AUTO

if TYPE_CHECKING:
    from ccfast.training.run_folder.folder import RunFolder
    from ccfast.training.verification import Verification

log = logging.getLogger(__name__)

Record = dict[str, Any]


def beginning(
    data: ReIDData, encoder: Encoder, config: TrainConfig, device: torch.device, folder: RunFolder, measured: bool
) -> None:
    """Log the encoder, the device, the method, and how to read the following lines."""
    parameters = sum(parameter.numel() for parameter in encoder.parameters())
    log.info(
        "encoder %s, %.2f M parameters, %d-dimensional features, %s",
        config.arch, parameters / 1e6, encoder.num_features, _first_weights(config),
    )  # fmt: skip
    log.info("device %s; seed %d; run folder %s", device, config.seed, folder.path)
    if config.command == "train":
        memory = "" if config.memory is None else f", memory {config.memory}"
        log.info("method %s%s, temperature %g, momentum %g", config.method, memory, config.temperature, config.momentum)
        if config.mean_teacher:
            log.info("mean teacher, momentum %g: it gives clusters and metrics, and is saved", config.teacher_momentum)
        warn_of_structural_tie(config)
    if measured:
        log.info("mAP and rank-k, in percent: how well each query's identity is found in the gallery")
    if data.train.ids is not None and config.command == "train":
        log.info(
            "NMI and ARI, at most 1: how well the clusters agree with the true identities, which training does not use"
        )


def _first_weights(config: TrainConfig) -> str:
    if config.resume:
        return "weights of the last complete epoch"
    weights = config.init or config.weights
    return "random weights" if weights == "none" else f"weights: {weights}"


def ranking(record: Record) -> str:
    """ "mAP 82.1  rank-1 92.3  rank-5 ...", in percent; then the further protocols, each with its name."""
    further = [key.removesuffix("/mAP") for key, value in record.items() if key.endswith("/mAP") and value is not None]
    return "; ".join([_ranking(record, ""), *(f"{name}: {_ranking(record, f'{name}/')}" for name in further)])


def _ranking(record: Record, prefix: str) -> str:
    measured = [(f"rank-{rank}", record.get(f"{prefix}rank{rank}")) for rank in (1, 5, 10)]
    known = [(name, value) for name, value in [("mAP", record[f"{prefix}mAP"]), *measured] if value is not None]
    return "  ".join(f"{name} {100 * value:.1f}" for name, value in known)


def verification(found: Verification) -> str:
    """ "same or not, ...: ROC AUC 0.9812", and one line per false positive rate."""
    lines = [
        f"same or not, by cosine similarity ({found.same:,} same pairs, {found.different:,} different ones): "
        f"ROC AUC {found.auc:.4f}"
    ]
    for rate in found.thresholds:
        few = " (no different pair reaches it: there are too few)" if found.different * rate.fpr < 1 else ""
        threshold = f"similarity of at least {rate.threshold:.6f}{few}"
        lines.append(f"  TPR {100 * rate.tpr:.1f} at FPR {rate.fpr:g}: {threshold}")
    return "\n".join(lines)


#: The numbers about clusters that need no identities.
UNLABELLED = (("silhouette", "silhouette"), ("last_ari", "ARI with the last clusters"))


def epoch(record: Record, config: TrainConfig) -> None:
    """One line per epoch, and one more if it was evaluated."""
    title = f"epoch {record['epoch']:>{len(str(config.epochs))}}/{config.epochs}"
    if record["loss"] is None:
        log.info("before training: %s", ranking(record) if "mAP" in record else "not evaluated")
        return
    parts = [f"loss {record['loss']:.3f}"]
    if "clusters" in record:
        parts += _clusters(record, config)
        parts += [f"{name} {record[key]:.3f}" for key, name in UNLABELLED if record.get(key) is not None]
    if "nmi" in record:
        parts += [f"NMI {record['nmi']:.3f}", f"ARI {record['ari']:.3f}"]
    if "mAP" in record:
        parts.append(ranking(record))
    log.info("%s: %s  (%s)", title, "  ".join(parts), _seconds(record["seconds"]))


def _clusters(record: Record, config: TrainConfig) -> list[str]:
    """ "eps 0.7 (auto)", "12 clusters, the largest of 40 images, 5 images in no cluster"."""
    largest = f"the largest of {counted(record['largest'], 'image')}"
    outside = f"{counted(record['noise'], 'image')} in no cluster"
    auto = [chosen_eps(record["eps"])] if config.eps == AUTO and record.get("eps") is not None else []
    return [*auto, f"{counted(record['clusters'], 'cluster')}, {largest}, {outside}"]


def summary(records: list[Record], folder: RunFolder) -> None:
    """Log the metrics before, after and at the best epoch, and the time per stage; write the plot."""
    evaluated = [record for record in records if record.get("mAP") is not None]
    if len(evaluated) > 1:
        best = max(evaluated, key=lambda record: record["mAP"])
        log.info("before: %s", ranking(evaluated[0]))
        log.info("after:  %s", ranking(evaluated[-1]))
        log.info("best:   %s (epoch %d)", ranking(best), best["epoch"])
    total: Counter[str] = Counter()
    for record in records:
        total.update(record.get("seconds", {}))
    log.info("time: %s", _seconds(total))
    picture(records, folder)
    log.info("run folder: %s", folder.path)


def _seconds(seconds: dict[str, float]) -> str:
    """ "3.4 s: extract 1.2, train 2.1"; stages with negligible time are left out."""
    stages = [f"{stage} {value:.1f}" for stage, value in seconds.items() if value >= 0.05]
    return f"{sum(seconds.values()):.1f} s{': ' if stages else ''}{', '.join(stages)}"


def picture(records: list[Record], folder: RunFolder) -> None:
    """mAP, clusters and loss over the epochs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3), layout="constrained")
    for axes, (key, title) in zip(
        figure.subplots(1, 3), (("mAP", "mAP"), ("clusters", "clusters"), ("loss", "loss")), strict=True
    ):
        points = [(record["epoch"], record[key]) for record in records if record.get(key) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3)
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=120)
    write_whole(folder.curves, drawn.getvalue())
