"""The picture of `recovar check`: maps of the leading readings, their correlations and odds."""

import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from recovar.conventions import Evidence
from recovar.core.grid import Grid
from recovar.workflows.checking.report import Checked
from recovar.workflows.checking.search import CONVINCING

_INK, _MUTED = "#1f2933", "#9aa5b1"
_COLOURS = ("#2b6cb0", "#dd6b20", "#2f855a", "#805ad5", "#b83280")
_BARS = 14
_WORDS = 62
_LEAST_ODDS = 0.1
"""Decimal logarithms of odds closer to 0 than this are drawn alike."""


def draw_check(checked: Checked) -> Figure:
    """Draw what was found, and what was not."""
    figure = Figure((12.0, 7.0), layout="constrained")
    rows = figure.add_gridspec(2, 1, height_ratios=(1, 1.5))
    above = rows[0].subgridspec(1, len(_COLOURS))
    below = rows[1].subgridspec(1, 2, width_ratios=(1, 1.3))
    shown = _readings(checked)
    panels = [figure.add_subplot(place) for place in above]
    for axes in panels:
        axes.set_axis_off()
    for axes, colour, (name, evidence) in zip(panels, _COLOURS, shown, strict=False):
        _draw_map(axes, evidence, checked.sign or 1)
        axes.set_title("\n".join(textwrap.wrap(name, 26)[:3]), fontsize=8.5, color=colour)
    _draw_curves(figure.add_subplot(below[0]), shown, checked.grid)
    _draw_odds(figure.add_subplot(below[1]), checked)
    return figure


def _readings(checked: Checked) -> list[tuple[str, Evidence]]:
    """Name the readings that are shown: found, stated, and the next best one of each factor."""
    found = checked.found
    rest = [(each.alternative.name, each.evidence) for each in found.judged]
    shown = [*found.shown, *((name, maps) for name, maps in rest if maps is not None)]
    return shown[: len(_COLOURS)]


def _draw_map(axes: Axes, evidence: Evidence, sign: int) -> None:
    volume = sign * evidence.volume
    low, high = np.percentile(volume, (1, 99.9))
    axes.imshow(volume[len(volume) // 2], cmap="gray", vmin=low, vmax=high, origin="lower")


def _draw_curves(axes: Axes, shown: list[tuple[str, Evidence]], grid: Grid) -> None:
    def describe(frequency: float, _: object) -> str:
        return "∞" if frequency <= 0 else f"{1 / frequency:.3g}"

    frequency = np.arange(grid.shells) / (grid.size * grid.voxel_size)
    for colour, (_, evidence) in zip(_COLOURS, shown, strict=False):
        axes.plot(frequency[1:], evidence.curve[1:], color=colour, linewidth=1.4)
    axes.axhline(0, color=_MUTED, linewidth=0.8)
    axes.set_xlim(0, 0.5 / grid.voxel_size)
    axes.set_ylim(min(-0.1, *(float(e.curve.min()) for _, e in shown)), 1.03)
    axes.xaxis.set_major_locator(MaxNLocator(7))
    axes.xaxis.set_major_formatter(FuncFormatter(describe))
    axes.set_xlabel("resolution (Å)", fontsize=9)
    axes.set_title("correlation of half-maps", fontsize=10, color=_INK, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def _draw_odds(axes: Axes, checked: Checked) -> None:
    judged = checked.found.judged[:_BARS]
    odds = np.array([min(-_LEAST_ODDS, each.odds.log10) for each in judged])
    finite = odds[np.isfinite(odds)]
    odds = np.maximum(odds, finite.min() if finite.size else -1.0)
    places = np.arange(len(judged))
    colours = [_COLOURS[0] if value < -CONVINCING else _COLOURS[1] for value in odds]
    axes.barh(places, -odds, color=colours, height=0.65)
    names = [each.alternative.name for each in judged]
    axes.set_yticks(places, [textwrap.shorten(name, _WORDS, placeholder=" …") for name in names])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.axvline(CONVINCING, color=_MUTED, linewidth=1, linestyle="--")
    axes.set_xlabel("decimal logarithm of the odds against it", fontsize=9)
    axes.set_title("what else was tried", fontsize=10, color=_INK, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=7.5)
