"""``ccfast cluster``."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

HELP = "cluster images with a trained encoder, or the rows of a .npy file"

#: The options of the clustering; with a run its own values are the defaults.
OPTIONS = (
    "cluster", "eps", "k1", "k2", "min_samples", "min_similarity", "min_cluster_size", "num_clusters", "neighbours",
    "faiss_index", "faiss_search",
)  # fmt: skip

#: Options that apply to images only.
OF_IMAGES = ("data_dir", "dataset", "part", "workers", "max_image_pixels", "bad_images", "copy_to", "copy")

#: Options that apply to a file of features only.
OF_FEATURES = ("noise", "normalize", "memory_limit", "work_dir")

#: The help of options that mean something else without epochs.
EPS = "DBSCAN: largest Jaccard distance between neighbours, in [0, 1), or auto: chosen from the features"
NOISE = "only for FEATURES.npy: rows in no cluster get the label -1 (drop), or each one a label of its own (single)"

log = logging.getLogger(__name__)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    from ccfast.commands._options import (
        DEFAULT_DATASET,
        add_dataset,
        add_encoder,
        add_fields,
        add_images_and_device,
        group,
    )
    from ccfast.inference import COPY_MODES

    parser.description = (
        "Cluster images, or the rows of a file. With a run: cluster its training images, or with --data-dir all images "
        "of a folder, with the run's options. CLUSTERS.csv gets the path of each image, its cluster (-1: no cluster) "
        "and its distance from the cluster's centre. With --arch and --weights instead of a run: the same, without "
        "training. With FEATURES.npy, rows [N, D] of unit norm: write labels [N] to LABELS.npy."
    )
    parser.add_argument("source", nargs="?", metavar="RUN|CHECKPOINT.pt|FEATURES.npy", help="the encoder or features")
    output = group(parser, "output")
    output.add_argument("-o", "--output", required=True, metavar="CLUSTERS.csv|LABELS.npy", help="file to write")
    output.add_argument("--copy-to", metavar="DIR", help="also make one folder of images per cluster, in a new DIR")
    output.add_argument("--copy", choices=COPY_MODES, help="what --copy-to makes (default: links)")
    output.add_argument(
        "--sweep", action="store_true",
        help="instead of clustering, print the number of clusters, the noise and the silhouette for each eps, and plot "
        "them to -o FILE.png (.svg, .pdf)",
    )  # fmt: skip
    add_images_and_device(parser, run_optional=True)
    add_dataset(parser, "data set in --data-dir (default: none, all images in it and its sub-folders)")
    images = group(parser, "images")
    images.add_argument("--part", choices=("train", "query", "gallery"), help="part of the data set (default: train)")
    add_encoder(parser)
    features = group(parser, "features in a file")
    features.add_argument("--normalize", action="store_true", help="first scale the rows of FEATURES.npy to unit norm")
    features.add_argument(
        "--memory-limit",
        metavar="SIZE",
        help="cluster FEATURES.npy by blocks, in at most this much memory, such as 800M or 4G; after an interruption "
        "the same command continues with the next block",
    )
    features.add_argument(
        "--work-dir", metavar="DIR", help="folder for the files of --memory-limit (default: LABELS.npy.work)"
    )
    texts = {"eps": EPS, "noise": NOISE}
    add_fields(parser, ("bad_images", *OPTIONS), DEFAULT_DATASET, with_run=True, texts=texts)
    add_fields(parser, ("noise",), DEFAULT_DATASET, texts=texts)


def run(options: dict[str, Any]) -> None:
    """Cluster features or images."""
    from ccfast._errors import InputError
    from ccfast._files import given_path
    from ccfast.commands._options import ENCODER
    from ccfast.commands.cluster.features import cluster_file
    from ccfast.commands.cluster.sweep import sweep_file
    from ccfast.training.config import FIELDS, flag
    from ccfast.training.without_effect import warn_of_other_clusterings

    source = options.pop("source", None)
    if source is not None:
        given_path("RUN, CHECKPOINT.pt or FEATURES.npy", source)
    named = [flag(name) for name in (*OF_IMAGES, *ENCODER) if name in options]
    if source is not None and _is_features(Path(source), bool(named)):
        if named:
            raise InputError(f"{', '.join(named)}: only for images, not for the features in {source}")
        warn_of_other_clusterings(options, options.get("cluster", FIELDS["cluster"].default))
        sweep_file(source, **options) if options.pop("sweep", False) else cluster_file(source, **options)
        return
    if named := [flag(name) for name in OF_FEATURES if name in options]:
        raise InputError(f"{', '.join(named)}: only for FEATURES.npy, not for images")
    cluster(source, **options)


def _is_features(source: Path, of_images: bool) -> bool:
    """Whether ``source`` means a .npy file (of any name), and not a run or a checkpoint."""
    if source.suffix == ".npy" or source.is_dir():
        return not source.is_dir()
    return source.suffix not in (".pt", ".pth", ".safetensors") and (source.is_file() or not of_images)


def cluster(
    source: str | None,
    output: str,
    *,
    data_dir: str | None = None,
    dataset: str | None = None,
    part: str | None = None,
    copy_to: str | None = None,
    copy: str | None = None,
    sweep: bool = False,
    **options: Any,
) -> None:
    """Cluster images with the encoder of a run, or with one given by its weights."""
    from ccfast._errors import InputError
    from ccfast._files import given_output, keep_inputs, write_whole
    from ccfast.commands._options import encoder_of
    from ccfast.commands.cluster.features import Announcing
    from ccfast.commands.cluster.sweep import PICTURES, require_dbscan, write_sweep
    from ccfast.inference import image_clusters as clusters
    from ccfast.training.clustering.pseudo_labels import PseudoLabels, warn_of_giant
    from ccfast.training.without_effect import warn_of_other_clusterings

    target = given_output("--output", output, PICTURES if sweep else (".csv",))
    keep_inputs("--output", target, {"--data-dir": data_dir})
    folder = None if copy_to is None else clusters.given_new_folder("--copy-to", copy_to)
    if copy is not None and folder is None:
        raise InputError("--copy: only with --copy-to")
    if part is not None and dataset is None and data_dir is not None:
        raise InputError("--part: only with --dataset, or with the run's own images")
    trained = encoder_of(source, data_dir=data_dir, dataset=dataset, **options)
    warn_of_other_clusterings(options, trained.config.cluster)
    if data_dir is not None and dataset is None:
        images, name = trained.read_images("--data-dir", data_dir), "images"
    else:
        images, name = trained.part(part or "train"), part or "train"
    if folder is not None and not hasattr(images.images, "paths"):
        raise InputError(f"--copy-to: the images of {trained.data.name} are not files")
    config = clusters.fitting(trained.config, len(images), options)
    if sweep:
        require_dbscan(config)
    features = trained.extract(images)
    if sweep:
        write_sweep(features, config, target)
        return
    found = clusters.cluster_images(features, config, Announcing(trained.device))
    write_whole(target, clusters.clusters_table(clusters.image_names(images, name), found))
    log.info("%s; %s", clusters.told(found), target)
    clusters.advise(found, features, config)
    warn_of_giant(PseudoLabels(found.labels), features, config)
    if folder is not None:
        files: Any = images.images
        clusters.copy_clusters(files.paths, found.labels, folder, copy or clusters.LINKS)
        log.info("one folder per cluster: %s", folder)
        if data_dir is not None:
            clusters.warn_of_copies_among(data_dir, folder)
