"""What is known of a file: lines for people, and the same as plain values for programs."""

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Num, Shaped

_NAME, _WIDTH = 20, 100
"""Columns of names, and of everything."""
_MOST_VALUES = 64
"""Of which JSON has the counts."""


@dataclass(frozen=True)
class Fact:
    """One line of a report."""

    name: str
    text: str
    """Words and units."""
    value: Any
    """The same in plain values, for JSON."""


@dataclass(frozen=True)
class FileReport:
    """All that is told about one file."""

    path: Path
    kind: str
    """What sort of file it is, in words."""
    facts: tuple[Fact, ...]
    missing: tuple[str, ...] = ()
    """What it lacks, and what follows."""
    doubts: tuple[str, ...] = ()
    """Values that look wrong."""
    notes: tuple[str, ...] = ()
    """What the reader of such files remarked."""


def count_of(number: int, noun: str) -> str:
    """Write a number of things.

    Example:
        >>> count_of(1, "image"), count_of(1200, "image")
        ('1 image', '1,200 images')
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def range_of(values: Num[np.ndarray, "..."], unit: str = "") -> str:
    """Write the smallest and the largest value, or the only one.

    Example:
        >>> range_of(np.array([2.0, 2.0]), "Å"), range_of(np.array([1.5, 12345.6]))
        ('2 Å', '1.5 … 12,345.6')
    """
    low, high = limits(values)
    text = number_of(low) if low == high else f"{number_of(low)} … {number_of(high)}"
    return text + unit if unit == "°" else f"{text} {unit}".rstrip()


def number_of(value: float | int | np.number) -> str:
    """Write a number with what digits people want of it.

    Example:
        >>> [number_of(x) for x in (0.0, 0.012345, 1.0353, 12345.67, 1e7, 1.5e-9)]
        ['0', '0.01235', '1.035', '12,345.7', '10,000,000', '1.5e-09']
    """
    number = float(value)
    if abs(number) >= 1000 and np.isfinite(number):
        return f"{number:,.1f}".removesuffix(".0")
    return f"{number:.4g}"


def without_name(path: Path, sentence: str) -> str:
    """Leave out the name of the file where a message of its reader begins with it."""
    return sentence.removeprefix(str(path)).lstrip(": ")


def limits(values: Num[np.ndarray, "..."]) -> list[float]:
    """Give the smallest and the largest finite value."""
    finite = values[np.isfinite(values)]
    return [float(finite.min()), float(finite.max())] if finite.size else [np.nan, np.nan]


def tally(values: Shaped[np.ndarray, " n"]) -> dict[str, int]:
    """Count how often each value occurs, of many values the first.

    Example:
        >>> tally(np.array([2, 1, 2]))
        {'1': 1, '2': 2}
    """
    distinct, counts = np.unique(values, return_counts=True)
    pairs = zip(distinct[:_MOST_VALUES], counts, strict=False)
    return {str(each): int(count) for each, count in pairs}


def describe(reports: Iterable[FileReport]) -> list[str]:
    """Write aligned tables, one per file."""
    lines: list[str] = []
    for report in reports:
        lines += ["", *_wrapped(f"{report.path}: {report.kind}", "", "  ")]
        for fact in report.facts:
            name = f"  {fact.name}  "
            lines += _wrapped(fact.text, f"{name:<{_NAME + 2}}", " " * (_NAME + 2))
        for heading, sentences in _remarks(report):
            lines.append(f"  {heading}")
            for sentence in sentences:
                lines += _wrapped(sentence, "    - ", "      ")
    return lines[1:]


def _wrapped(text: str, first: str, rest: str) -> list[str]:
    """Break text into lines; those that are indented already stay whole, farther to the left."""
    lines: list[str] = []
    for number, part in enumerate(text.split("\n")):
        if part.startswith("  "):
            lines.append(f"  {part}"[:_WIDTH])
            continue
        lines += textwrap.wrap(
            part,
            _WIDTH,
            initial_indent=rest if number else first,
            subsequent_indent=rest,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return lines


def _remarks(report: FileReport) -> Iterator[tuple[str, tuple[str, ...]]]:
    for heading, sentences in (
        ("missing", report.missing),
        ("suspicious", report.doubts),
        ("remarks", report.notes),
    ):
        if sentences:
            yield heading, sentences


def to_plain(report: FileReport) -> dict[str, Any]:
    """Give a report as JSON has it."""
    return {
        "path": str(report.path),
        "kind": report.kind,
        "facts": {fact.name: _finite(fact.value) for fact in report.facts},
        **{heading: list(sentences) for heading, sentences in _remarks(report)},
    }


def _finite(value: Any) -> Any:  # noqa: ANN401
    """Replace what JSON has no word for."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
