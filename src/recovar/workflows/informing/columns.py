"""Tables that are not used as particles, column by column."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recovar.data.star import StarTable
from recovar.workflows.informing.report import (
    Fact,
    FileReport,
    count_of,
    limits,
    number_of,
    range_of,
    without_name,
)

_MOST_COLUMNS = 40
_MOST_BLOCKS = 8
_LONGEST = 36
"""Characters of a text that are shown."""


def report_star_columns(path: Path, blocks: Sequence[StarTable], refusal: str) -> FileReport:
    """Tell about a STAR file whose particles, if it has any, are not read."""
    facts = []
    for block in blocks[:_MOST_BLOCKS]:
        names = list(block.columns)[:_MOST_COLUMNS]
        described = {name: _column(block.columns[name]) for name in names}
        rows = "single values" if not block.loop else count_of(len(block), "row")
        facts.append(_table_fact(f"data_{block.name}", rows, described, len(block.columns)))
    if len(blocks) > _MOST_BLOCKS:
        rest = len(blocks) - _MOST_BLOCKS
        facts.append(Fact("further blocks", f"{rest:,}", rest))
    return FileReport(path, "STAR file", tuple(facts), notes=_why_not(path, refusal))


def report_cs_columns(path: Path, rows: np.ndarray, refusal: str) -> FileReport:
    """Tell about a cryoSPARC table whose particles are not read."""
    names = list(rows.dtype.names or ())
    described = {name: _column(rows[name]) for name in names[:_MOST_COLUMNS]}
    fact = _table_fact("fields", count_of(len(rows), "row"), described, len(names))
    return FileReport(path, "cryoSPARC table", (fact,), notes=_why_not(path, refusal))


def _why_not(path: Path, refusal: str) -> tuple[str, ...]:
    """Say why the pipeline does not take a file, in the words of its reader."""
    return (f"Not for the pipeline: {without_name(path, refusal)}",)


def _table_fact(name: str, rows: str, columns: dict[str, tuple[str, object]], count: int) -> Fact:
    width = max((len(label) for label in columns), default=0)
    lines = [f"{rows} of {count_of(count, 'column')}"]
    lines += [f"  {label:<{width}}  {text}" for label, (text, _) in columns.items()]
    if count > len(columns):
        lines.append(f"  … and {count - len(columns):,} more")
    value = {"rows": rows, "columns": {label: each for label, (_, each) in columns.items()}}
    return Fact(name, "\n".join(lines), value)


def _column(values: Sequence[str] | np.ndarray) -> tuple[str, object]:
    """Describe a column by its range, or by its first text."""
    if not len(values):
        return "empty", None
    try:
        numbers = np.asarray(values).astype(np.float64)
    except ValueError:
        texts = [value.decode() if isinstance(value, bytes) else str(value) for value in values]
        distinct, first = len(set(texts)), texts[0]
        shown = first if len(first) <= _LONGEST else f"{first[:_LONGEST]}…"
        text = shown if distinct == 1 else f"{shown} … ({distinct:,} different)"
        return text, {"first": first, "different": distinct}
    finite = numbers[np.isfinite(numbers)]
    if not finite.size:
        return "no finite values", None
    text = number_of(finite[0]) if finite.size == 1 else range_of(finite)
    broken = numbers.size - finite.size
    return (f"{text}; {broken:,} not finite" if broken else text), limits(finite)
