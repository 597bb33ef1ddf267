"""The table that shows what was read, printed before anything is computed."""

from __future__ import annotations

from torch import Tensor

from ccfast.data.reid_data import Part, ReIDData

HEAD = ("part", "identities", "images", "cameras")


def table(data: ReIDData) -> str:
    """Identities, images and cameras of each part; then what was left out and why, and other notes.

    It has no findings that are logged as warnings.
    """
    parts = {"train": data.train, "query": data.query, "gallery": data.gallery}
    rows = [HEAD, *(_row(name, part) for name, part in parts.items() if part is not None)]
    lines = [f"  {name:<8}" + "".join(f"{cell:>12}" for cell in cells) for name, *cells in rows]
    return "\n".join([str(data), *lines, *(f"  {line}" for line in _below(data))])


def _row(name: str, part: Part) -> tuple[str, ...]:
    return name, _kinds(part.ids, "unknown"), f"{len(part):,}", _kinds(part.cams, "none")


def _kinds(column: Tensor | None, without: str) -> str:
    return without if column is None else f"{len(column.unique()):,}"


def _below(data: ReIDData) -> list[str]:
    lines = [f"left out: {line}" for line in data.findings.lines(warns=False)] + data.findings.notes
    missing = [name for name, part in (("query", data.query), ("gallery", data.gallery)) if part is None]
    if missing:
        return [*lines, f"no {' and no '.join(missing)}: no evaluation"]
    if data.query is not None and data.query.cams is None:
        lines.append("no cameras: ranking leaves nothing out")
    return lines
