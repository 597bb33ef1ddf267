"""``ccfast extract``: a trained encoder's features of a data set in a .npy file, and a table of the rows' images."""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ccfast._errors import InputError
from ccfast._files import array_content, given_output, write_all_whole
from ccfast.data import Part, ReIDData
from ccfast.training.trained import load_trained

log = logging.getLogger(__name__)

PARTS = ("train", "query", "gallery")
COLUMNS = ("row", "part", "path", "id", "cam")


def extract_features(path: str, output: str, part: str = "all", **overrides: Any) -> Tensor:
    """Features [N, D] float32 of unit norm, from the encoder of a run or checkpoint, for its data set or another one.

    ``output`` is a .npy file. A .csv file of the same name gets :data:`COLUMNS` for each row: the path of the image
    (empty for images that are not files; bytes that are not UTF-8 as ``\\xff``), its identity and its camera (empty if
    unknown). Either both files are written or neither.

    Raises:
        InputError: wrong options, or a .csv file of that name that is not such a table.

    Args:
        part: "train", "query", "gallery", or "all" existing parts, in this order.
        overrides: other values for the run's ``dataset``, ``data_dir``, ``device`` and ``workers``.
    """
    target = given_output("--output", output, (".npy",))
    table = given_output("--output", target.with_suffix(".csv"))
    _require_own(table, target)
    trained = load_trained(path, **overrides, ignore_cameras=False)  # the table has the cameras
    parts = _chosen(trained.data, part)
    features = torch.cat([trained.extract(chosen, name) for name, chosen in parts.items()]).cpu()
    write_all_whole({target: array_content(features.numpy()), table: _table(parts)})
    log.info("%s (epoch %d): %d x %d features in %s", trained.file, trained.epoch, *features.shape, target)
    log.info("the images of the rows: %s", table)
    return features


def _require_own(table: Path, target: Path) -> None:
    """Refuse to replace a .csv file that is not the table of earlier features: the user names only the .npy file."""
    if table.is_file():
        with open(table, encoding="utf-8", errors="replace") as file:
            first = file.readline(1000).strip()
        if first not in ("", ",".join(COLUMNS)):
            raise InputError(f"--output: {target} would replace {table}, which is not a table of ccfast extract")


def _chosen(data: ReIDData, part: str) -> dict[str, Part]:
    parts = {name: found for name in PARTS if (found := getattr(data, name)) is not None}
    if part == "all":
        return parts
    if part not in parts:
        raise InputError(f"--part: expected {', '.join(parts)} or all, the parts of {data.name}, got {part}")
    return {part: parts[part]}


def _table(parts: dict[str, Part]) -> str:
    file = io.StringIO()
    table = csv.writer(file)
    table.writerow(COLUMNS)
    row = 0
    for name, part in parts.items():
        paths = getattr(part.images, "paths", [""] * len(part))
        cams = [""] * len(part) if part.cams is None else part.cams.tolist()
        ids = [""] * len(part) if part.ids is None else part.ids.tolist()
        for image, identity, cam in zip(paths, ids, cams, strict=True):
            table.writerow([row, name, image, identity, cam])
            row += 1
    return file.getvalue()
