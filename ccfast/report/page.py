"""``ccfast report``: collects the results of a run and fills the template."""

from __future__ import annotations

import base64
import logging
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

import ccfast
from ccfast._errors import InputError
from ccfast._files import given_output, given_path, keep_inputs, write_whole
from ccfast._progress import progress
from ccfast._words import counted
from ccfast.data import Part, ReIDData
from ccfast.inference.image_clusters import ImageClusters, clusters_table, image_names, with_distances
from ccfast.report import clusters, curves, history, ranked
from ccfast.report.comparison import PLACES, compare
from ccfast.report.embedding import embedding_map
from ccfast.report.measures import measure
from ccfast.report.pairs import Pair, far_within, near_across
from ccfast.report.thumbnails import Thumbnail, shorten, thumbnail
from ccfast.training.clustering.pseudo_labels import pseudo_labels
from ccfast.training.config import TrainConfig
from ccfast.training.config_file import read_config
from ccfast.training.evaluate import agreement, obstacles
from ccfast.training.run_folder.folder import PAGE, RunFolder
from ccfast.training.run_folder.records import read_records
from ccfast.training.stopwatch import Stopwatch
from ccfast.training.trained import Trained, load_trained

log = logging.getLogger(__name__)

TEMPLATE = "template.html"

#: The longer side, in pixels, of the images in ranked lists and cluster sheets.
LARGE, SMALL, TINY = 176, 112, 64

#: Number of shown images that are in no cluster.
IN_NONE = 32


@dataclass(frozen=True)
class Picture:
    """A thumbnail with the image's labels."""

    thumbnail: Thumbnail
    identity: int | None
    camera: int | None


@dataclass(frozen=True)
class Option:
    """An option of the run; ``recipe`` is the data set's value if the run has another."""

    name: str
    value: Any
    recipe: Any
    differs: bool


def write_report(
    run: str | Path,
    output: str | Path | None = None,
    *,
    queries: int = 12,
    compare_with: str | Path | None = None,
    data: ReIDData | None = None,
    image_clusters: ImageClusters | None = None,
    **overrides: Any,
) -> Path:
    """Write one HTML page about a run, which contains its images and figures, and return its path.

    Args:
        run: the run folder. Features are from its best.pt, or else from its checkpoint.pt.
        output: the page; by default ``report.html`` in the run folder. An older page is replaced.
        queries: number of ranked lists to show.
        compare_with: another run folder, to compare results and options with.
        data: the run's data set, if the caller has loaded it.
        image_clusters: the clusters of its training images, if the caller has them.
        overrides: other values for the run's ``data_dir``, ``device``, ``workers`` and ``ignore_cameras``.

    Raises:
        InputError: no run, or no data.
    """
    folder, output = _check(given_path("RUN", run), output, queries)
    trained = load_trained(folder.path, data=data, **overrides)
    found = read_records(folder.metrics)
    if found.faults:
        log.warning("%s: %s; the page shows the intact records", folder.metrics, found.told())
    records = history.readable(found.records)
    config = read_config(folder.config) if folder.config.exists() else trained.config
    beside = None if compare_with is None else compare(folder.path, records, config.stored(), compare_with)
    page = render(
        TEMPLATE,
        run=folder.path.resolve().name,
        file_name=trained.file.name,
        trained=trained,
        version=ccfast.build_info()["version"],
        tiles=history.tiles(records, len(trained.data.train)),
        best=history.best_epoch(records),
        last=records[-1]["epoch"] if records else None,
        options=_options(config),
        comparison=beside,
        comparison_charts=[] if beside is None else curves.comparison_charts(records, beside.records),
        charts=curves.charts(records),
        stages=history.stages(records),
        time_chart=curves.time_chart(records),
        protocol=next(iter(trained.data.protocols.items()), None),
        rate=curves.constant_rate(records),
        **_search(trained, queries),
        **_clusters(trained, image_clusters),
    )
    write_whole(output, page)
    log.info("page about the run, to open in a browser: %s (%.1f MB)", output, len(page) / 1e6)
    return output


def _check(run: Path, output: str | Path | None, queries: int) -> tuple[RunFolder, Path]:
    """Check the arguments before minutes of work."""
    if not run.is_dir():
        what = "is a file" if run.exists() else "does not exist"
        raise InputError(f"RUN: expected a run folder, got {run}, which {what}")
    if queries < 0:
        raise InputError(f"--queries: expected at least 0, got {queries}")
    output, folder = given_output("--output", run / PAGE if output is None else output), RunFolder(run)
    keep_inputs("--output", output, {f"the run's {file.name}": file for file in folder.files})
    return folder, output


def render(template: str, **content: Any) -> str:
    """A template of this package, filled with content."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ccfast.report", "."),
        autoescape=True,  # names of files come from the data
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "counted": counted, "distance": distance, "duration": history.duration, "percent": history.percent,
        "shorten": shorten, "told": _told, "widths": widths,
    }  # fmt: skip
    return environment.get_template(template).render(**content)


def widths(charts: int) -> list[str]:
    """The class of each of ``charts`` charts: three per row, and two in the last rows, so that every row is full."""
    halves = {0: 0, 1: 4, 2: 2}[charts % 3]
    return (["third"] * max(0, charts - halves) + ["half"] * halves)[:charts]


def distance(value: float) -> str:
    """A squared distance of unit features with three significant digits; rounding errors of float32 are 0."""
    return "0" if value < 1e-6 else f"{value:#.3g}".replace("e-0", "e-")


def _told(value: Any) -> Any:
    """An option's value in readable form."""
    return {None: "–", True: "yes", False: "no"}[value] if value is None or isinstance(value, bool) else value


def _options(config: TrainConfig) -> list[Option]:
    """The run's options in the order of ``ccfast train --help``, compared with the data set's recipe."""
    recipe = TrainConfig(dataset=config.dataset, data_dir=config.data_dir).stored()
    return [
        Option(name, value, recipe.get(name), name not in PLACES and value != recipe.get(name))
        for name, value in config.stored().items()
    ]


def _search(trained: Trained, count: int) -> dict[str, Any]:
    """The ranked lists with their images, and the measures; empty without an evaluation."""
    query, gallery, against = trained.data.query, trained.data.gallery, obstacles(trained.data)
    obstacle = against.get("", against.get(next(iter(trained.data.protocols), "")))
    if query is None or gallery is None or obstacle:
        return {"ranked": [], "measures": None, "search_charts": [], "obstacle": obstacle}
    features = trained.extract(query, "query"), trained.extract(gallery, "gallery")
    lists = ranked.ranked_lists(trained.data, *features, count)
    measures = measure(trained.data, *features)
    shown = [
        {
            "list": found,
            "query": _picture(query, found.query, LARGE),
            "entries": [(entry, _picture(gallery, entry.index, LARGE)) for entry in found.entries],
        }
        for found in progress(lists, "ranked lists", len(lists))
    ]
    charts = [curves.cmc_chart(measures.cmc)]
    if any(measures.same) or any(measures.different):
        charts.append(curves.distance_chart(measures.same, measures.different))
    return {"ranked": shown, "measures": measures, "search_charts": charts}


def _clusters(trained: Trained, found: ImageClusters | None) -> dict[str, Any]:
    """The sheets of clusters with their images, and their sizes."""
    train, config = trained.data.train, trained.config
    if not len(train):
        raise InputError(f"--data-dir: {config.data_dir}: lists no training images, whose clusters the page shows")
    if found is None:
        features = trained.extract(train, "train")
        found = with_distances(features, pseudo_labels(features, config, Stopwatch(trained.device)).labels)
    labels = found.labels
    sizes = clusters.sizes(labels)
    groups = clusters.sheets(labels, train.ids, config.num_instances)
    total = sum(len(cluster.members) for group in groups for cluster in group.clusters)
    rows = (row for group in groups for cluster in group.clusters for row in cluster.members)
    known = clusters.known(train.ids) is not None
    pictures: Iterator[Picture] = (_picture(train, row, SMALL, known) for row in progress(rows, "clusters", total))
    table = clusters_table(image_names(train, "train"), found)
    return {
        "sheets": [
            (group.title, [(cluster, [next(pictures) for _ in cluster.members]) for cluster in group.clusters])
            for group in groups
        ],
        "images": len(labels),
        "facts": _facts(labels, sizes, train.ids) if sizes else [],
        "histogram": curves.histogram(sizes) if sizes else None,
        "table": base64.b64encode(table.encode()).decode("ascii"),
        "in_none": [_picture(train, row, SMALL, known) for row in clusters.in_none(labels, IN_NONE)],
        "noise": len(labels) - sum(sizes),
        **_map_and_pairs(train, found, known),
    }


def _map_and_pairs(train: Part, found: ImageClusters, known: bool) -> dict[str, Any]:
    """The map with its images, and the pairs that are most likely wrong."""
    if not clusters.sizes(found.labels):
        return {"map": None, "doubts": []}
    drawn = embedding_map(found.features, found.labels)
    points = [] if drawn is None else progress(drawn.points, "map", len(drawn.points))

    def shown(pairs: list[Pair]) -> list[tuple[Pair, Picture, Picture]]:
        return [(pair, *(_picture(train, row, SMALL, known) for row in (pair.first, pair.second))) for pair in pairs]

    doubts = [
        (
            "Nearest images of two clusters",
            "perhaps one identity in two clusters",
            near_across(found.features, found.labels),
        ),
        (
            "Farthest images of one cluster",
            "perhaps two identities in one cluster",
            far_within(found.features, found.labels, found.distances),
        ),
    ]
    return {
        "map": drawn
        and {"method": drawn.method, "points": [(point, _picture(train, point.row, TINY)) for point in points]},
        "doubts": [(title, text, shown(pairs)) for title, text, pairs in doubts if pairs],
    }


def _facts(labels: Tensor, sizes: list[int], ids: Tensor | None) -> list[tuple[str, str]]:
    """The rows of the table beside the histogram."""
    noise = len(labels) - sum(sizes)
    names = {"nmi": "NMI", "ari": "ARI", "purity": "purity"}
    return [
        ("clusters", f"{len(sizes):,}"),
        ("images in no cluster", f"{noise:,} ({noise / len(labels):.1%})"),
        ("smallest, median, largest", f"{min(sizes):,}, {statistics.median_low(sizes):,}, {max(sizes):,}"),
        *((names[name], f"{value:.3f}") for name, value in agreement(labels, ids).items()),
    ]


def _picture(part: Part, index: int, side: int, known: bool = True) -> Picture:
    identity = int(part.ids[index]) if known and part.ids is not None else None
    camera = None if part.cams is None else int(part.cams[index])
    return Picture(thumbnail(part.images, index, side), identity, camera)
