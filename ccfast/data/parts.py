"""Makes the parts of a data set from lists of image files."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ccfast._errors import InputError
from ccfast.data.findings import Findings, Reason, printable
from ccfast.data.image_files import ImageFiles, leave_out_bad
from ccfast.data.protocol import Protocol
from ccfast.data.reid_data import Part, ReIDData
from ccfast.data.transforms import image_views

log = logging.getLogger(__name__)

TRAIN, QUERY, GALLERY = "train", "query", "gallery"

#: The largest int64.
LARGEST = 2**63 - 1


class Label(NamedTuple):
    """The labels of one image; None if unknown."""

    id: int | None
    cam: int | None = None
    clothes: int | None = None


def read_parts(
    files: dict[str, list[Path]],
    label: Callable[[Path], Label],
    findings: Findings,
    *,
    bad_images: str,
    workers: int,
) -> dict[str, Part]:
    """The parts of the images in ``files`` (``train``, and if present ``query`` and ``gallery``).

    Args:
        label: returns the labels of a path.
        findings: counts the images that are left out.
        bad_images: "refuse" (raise an error for) unreadable images, or "skip" them.
        workers: threads that search for unreadable images.
    """
    kept = leave_out_bad(files, skip=bad_images == "skip", workers=workers)
    for name, paths in kept.items():
        kept_paths = set(paths)
        missing = [path for path in files[name] if path not in kept_paths]
        if missing:
            findings.leave_out(Reason.BAD, missing[0], len(missing))
        if not paths and name == TRAIN:
            raise InputError(f"{missing[0].parent if missing else name}: no image that can be read")
    parts = {name: _part(paths, [label(path) for path in paths]) for name, paths in kept.items() if paths}
    if QUERY in parts and GALLERY in parts and (parts[QUERY].cams is None) != (parts[GALLERY].cams is None):
        folders = f"{kept[QUERY][0].parent} and {kept[GALLERY][0].parent}"
        raise InputError(f"{folders}: cameras (_cN in the names) in one of them only")
    return parts


def _part(paths: list[Path], labels: list[Label]) -> Part:
    ids, cams, clothes = zip(*labels, strict=True)
    columns = (
        _column(paths, values, what) for values, what in ((ids, "identity"), (cams, "camera"), (clothes, "clothes"))
    )
    return Part(ImageFiles(paths), *columns)


def _column(paths: list[Path], values: Sequence[int | None], what: str) -> Tensor | None:
    known = [value for value in values if value is not None]
    if known and len(known) < len(values):
        path = printable(paths[values.index(None)])
        raise InputError(f"{path}: has no {what} in its name while others in its folder have")
    for path, value in zip(paths, known, strict=False):
        check_number(path, what, value)
    return torch.tensor(known, dtype=torch.int64) if known else None


def check_number(path: Path | str, what: str, value: int) -> None:
    """Refuse a number that is too large for a tensor; ``path`` and ``what`` are for the message."""
    if abs(value) > LARGEST:
        raise InputError(f"{printable(path)}: {what}: expected a number of at most {LARGEST}, got {value}")


def check_counts(name: str, files: dict[str, list[Path]], published: dict[str, int]) -> None:
    """Warn if there are more or fewer images than in the published data set."""
    counts = {part: len(paths) for part, paths in files.items()}
    if counts != {part: published[part] for part in counts}:
        log.warning(
            "%s: %s images; the published data set has %s. Ignore this for your own images in this layout; "
            "otherwise the copy is incomplete or altered.",
            name, _listed(counts), _listed(published),
        )  # fmt: skip


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {part}" for part, count in counts.items())


def photographs(
    name: str,
    parts: dict[str, Part],
    findings: Findings,
    protocols: Callable[[Part, Part], dict[str, Protocol]] | None = None,
    infrared_cams: tuple[int, ...] = (),
) -> ReIDData:
    """A data set of colour images; ``protocols(query, gallery)``: how they are compared, by default Market-1501's."""
    query, gallery = parts.get(QUERY), parts.get(GALLERY)
    chosen = {} if protocols is None or query is None or gallery is None else protocols(query, gallery)
    return ReIDData(name, parts[TRAIN], query, gallery, 3, image_views, chosen, findings, infrared_cams)
