"""The table that ``ccfast check`` prints: a line for each op on each device."""

from __future__ import annotations

from ccfast.check.run import Row

COLUMNS = (
    ("device", 8), ("op", 26), ("cases", 6), ("difference", 11), ("repeated", 9), ("graph", 6), ("ccfast", 9),
    ("eager torch", 17), ("timed at", 0),
)  # fmt: skip

#: Faults of an op that are printed; the file of --json has all.
MOST_FAULTS = 5


def heading() -> str:
    """The names of the columns."""
    return _line([name for name, _ in COLUMNS])


def line(row: Row) -> str:
    """The line of one op."""
    if not row.cases:
        return _line([row.device, row.op, "0", *([""] * 5), "WRONG" if row.faults else row.note])
    times = row.times
    ours = seconds(times.ours) if times and times.ours else "-"
    eager = f"{seconds(times.eager)} ({times.eager / times.ours:.3g}x)" if times and times.eager and times.ours else "-"
    note = f"; {row.note}" if row.note else ""
    difference = f"{row.difference:.1e}" if row.difference else "none"
    cells = [
        row.device, row.op, f"{row.cases}", "WRONG" if row.faults else difference,
        "-" if row.faults else "same bits", f"{row.graphs}" if row.graphs else "-", ours, eager,
        f"{times.sizes}{note}" if times else "-",
    ]  # fmt: skip
    return _line(cells)


def verdict(rows: list[Row]) -> list[str]:
    """One line per fault, or a line which says that there is none."""
    lines = []
    for row in rows:
        lines += [f"{row.op} on {row.device}: {fault}" for fault in row.faults[:MOST_FAULTS]]
        if len(row.faults) > MOST_FAULTS:
            lines.append(f"{row.op} on {row.device}: and {len(row.faults) - MOST_FAULTS} others")
    if lines:
        return lines
    unchecked = ", ".join(dict.fromkeys(row.op for row in rows if not row.cases))
    return [f"all ops are correct{f'; not checked: {unchecked}' if unchecked else ''}"]


def seconds(value: float) -> str:
    """Three digits and a unit."""
    for unit, scale in (("s", 1), ("ms", 1e-3)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value / 1e-6:.3g} us"


def _line(cells: list[str]) -> str:
    return "  ".join(f"{cell:<{width}}" for cell, (_, width) in zip(cells, COLUMNS, strict=True)).rstrip()
