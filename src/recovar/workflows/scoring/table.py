"""Scores with their meaning, as lines for people and as JSON for programs."""

import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

_NAME, _VALUE, _WIDTH = 27, 16, 100
"""Columns of names, of values, and of everything."""


@dataclass(frozen=True)
class Score:
    """A number, or some that belong together."""

    name: str
    """Its place in scores.json, such as `mean.auc`."""
    value: float | Mapping[str, float | int]
    """A mapping tells several by a short word or number."""
    meaning: str = ""
    """Completes the line in the table; without it the score stands in scores.json alone."""
    best: float | None = None
    """Value of a perfect result, where that is known."""


@dataclass(frozen=True)
class Section:
    """Scores of one thing."""

    title: str
    scores: tuple[Score, ...]
    curves: Mapping[str, Float[np.ndarray, " points"]] = field(default_factory=dict)
    """What the picture draws."""
    skipped: tuple[str, ...] = ()
    """What could not be scored, and why."""


def describe(sections: Iterable[Section]) -> list[str]:
    """Write a table: what, how good, how good it could be, and what that means."""
    lines: list[str] = []
    for section in sections:
        shown = [score for score in section.scores if score.meaning]
        if shown:
            lines += ["", section.title]
        for score in shown:
            lines += _lines(score)
    return lines


def _lines(score: Score) -> list[str]:
    """Put name, value and meaning in a line, or the meaning below where it does not fit."""
    name, value = score.name.partition(".")[2], _format(score.value)
    best = "" if score.best is None else f" (best {_number(score.best)})"
    head = f"  {name:<{_NAME}}{value + best:<{_VALUE}}  "
    if len(head + score.meaning) <= _WIDTH:
        return [head + score.meaning]
    indent = " " * (2 + _NAME)
    below = textwrap.wrap(score.meaning, _WIDTH, initial_indent=indent, subsequent_indent=indent)
    return [head.rstrip(), *below]


def _format(value: float | Mapping[str, float | int]) -> str:
    if isinstance(value, Mapping):
        return "  ".join(f"{key} {_number(each)}" for key, each in value.items())
    return _number(value)


def _number(value: float | int) -> str:
    if float(value).is_integer():
        return f"{value:.0f}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.3g}"


def to_tree(sections: Iterable[Section]) -> dict[str, Any]:
    """Nest all scores by the parts of their names; what is not finite becomes null."""
    tree: dict[str, Any] = {}
    for section in sections:
        for score in section.scores:
            *parents, last = score.name.split(".")
            place = tree
            for parent in parents:
                place = place.setdefault(parent, {})
            place[last] = _plain(score.value)
    return tree


def _plain(value: float | int | Mapping[str, float | int]) -> Any:  # noqa: ANN401
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return float(value) if np.isfinite(value) else None
