"""Comparison of two runs: their results, and the options that differ."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccfast._errors import InputError
from ccfast._files import given_path
from ccfast.report import history
from ccfast.report.history import Record
from ccfast.training.config_file import read_config
from ccfast.training.run_folder.folder import RunFolder
from ccfast.training.run_folder.records import read_records

log = logging.getLogger(__name__)

#: Options that do not affect what a run computes; differences in them are not shown.
PLACES = ("data_dir", "source_dir", "device", "workers", "max_image_pixels")


@dataclass(frozen=True)
class Comparison:
    """``names``: of this run and of the other one. ``results``: a measure and its value in each run, "–" if unknown.
    ``options``: the options that differ, with the value in each run. ``records``: those of the other run."""

    names: tuple[str, str]
    results: list[tuple[str, str, str]]
    options: list[tuple[str, Any, Any]]
    records: list[Record]


def compare(run: Path, records: list[Record], stored: dict[str, Any], other: str | Path) -> Comparison:
    """Compare ``run``, with its records and options, with the run folder ``other`` (``--compare``).

    Raises:
        InputError: ``other`` is not a run folder.
    """
    folder = RunFolder(given_path("--compare", other))
    if not folder.config.is_file():
        raise InputError(f"--compare: expected a run folder, got {folder.path}, which has no {folder.config.name}")
    others = history.readable(read_records(folder.metrics).records)
    theirs = read_config(folder.config).stored()
    mine, yours = _data_set(stored), _data_set(theirs)
    if mine != yours:
        log.warning(
            "--compare: %s learnt from %s, and %s from %s; compare their numbers only if the images are the same",
            folder.path, yours, run, mine,
        )  # fmt: skip
    names = [path.resolve().name for path in (run, folder.path)]
    if names[0] == names[1]:
        names = [str(run), str(folder.path)]
    options = [
        (name, stored.get(name), theirs.get(name))
        for name in {**stored, **theirs}
        if name not in PLACES and stored.get(name) != theirs.get(name)
    ]
    results_here, results_other = _results(records), _results(others)
    results = [
        (name, results_here.get(name, "–"), results_other.get(name, "–")) for name in {**results_here, **results_other}
    ]
    return Comparison((names[0], names[1]), results, options, others)


def _data_set(stored: dict[str, Any]) -> str:
    """The name and the place of a run's data set."""
    place = stored.get("data_dir")
    return str(stored["dataset"]) + (f" ({Path(place).expanduser().resolve()})" if place else "")


def _told(name: str) -> str:
    """ "rank-1" of rank1: as the rest of the page has it."""
    return re.sub(r"^rank(?=\d)", "rank-", name)


def _results(records: list[Record]) -> dict[str, str]:
    """The results of a run: the metrics of its best epoch, and the clusters of its last one."""
    found: dict[str, str] = {}
    best = history.best_epoch(records)
    if best is not None:
        record = next(record for record in records if record["epoch"] == best)
        found["best epoch"] = str(best)
        for prefix in history.protocols(records):
            for name in ("mAP", "rank1", "rank5", "rank10", "mINP"):
                if prefix + name in record:
                    found[prefix + _told(name)] = history.percent(record[prefix + name])
        for name in ("mAP", "rank1"):
            first = dict(history.points(records, name)).get(0)
            if first is not None:
                found[f"{_told(name)} before training"] = history.percent(first)
    for name, told in (("clusters", "{:,.0f}"), ("noise", "{:,.0f}"), ("nmi", "{:.3f}"), ("ari", "{:.3f}")):
        if measured := history.points(records, name):
            found[f"{name.upper() if name in ('nmi', 'ari') else name}, last epoch"] = told.format(measured[-1][1])
    total = sum(stage.total for stage in history.stages(records))
    if total:
        found["time"] = history.duration(total)
    return found
