"""Charts as SVG: pure functions of numbers, coloured by the style sheet of the page.

A chart carries what its points mean as text, for the script that shows it under the pointer.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from recovar.workflows.reporting.markup import Markup, element

WIDTH, HEIGHT, _SQUARE = 560.0, 320.0, 470.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 62.0, 16.0, 14.0, 46.0
_TICKS = 6
_RESOLUTIONS = (
    *(200, 100, 50, 40, 30, 25, 20, 15, 12, 10, 9, 8, 7, 6, 5, 4.5, 4, 3.5, 3, 2.7, 2.5, 2.3),
    *(2.1, 2, 1.9, 1.8, 1.7, 1.6, 1.5, 1.4, 1.3, 1.2, 1.1, 1),
)
"""Å, where an axis of frequencies may have a tick."""
_LEAST_GAP = 0.1
"""Between two such ticks, as a share of the axis."""
_LEAST_SHARE = 1e-6
"""Of the largest value, that a logarithmic axis shows at least."""


def number_text(value: float) -> str:
    """Write a number shortly.

    Example:
        >>> [number_text(x) for x in (0.0, 0.012345, 13.5, 12345.6, 4.4e6)]
        ['0', '0.0123', '13.5', '12,346', '4.4e+06']
    """
    if 1000 <= abs(value) < 1e6:
        return f"{value:,.0f}"
    return f"{value:.3g}"


@dataclass(frozen=True)
class Axis:
    """One axis of a chart."""

    label: str
    limits: tuple[float, float]
    is_logarithmic: bool = False
    describe: Callable[[float], str] = number_text
    """Writes a value beside its tick."""
    whole: bool = False
    """Whether only whole numbers get a tick."""
    marked: tuple[float, ...] = ()
    """Values that get a tick; chosen if not given."""

    def place(self, values: Float[np.ndarray, " points"]) -> Float[np.ndarray, " points"]:
        """Give the share of the axis that lies before each value."""
        low, high = self.limits
        if self.is_logarithmic:
            values, low, high = np.log(np.maximum(values, low)), np.log(low), np.log(high)
        return (values - low) / (high - low)

    def ticks(self) -> list[float]:
        """Choose values to mark."""
        low, high = self.limits
        if self.marked:
            return [value for value in self.marked if low <= value <= high]
        if self.is_logarithmic:
            return _logarithmic_ticks(low, high)
        step = _nice_step((high - low) / _TICKS)
        step = max(step, 1.0) if self.whole else step
        first, last = int(np.ceil(low / step - 1e-9)), int(np.floor(high / step + 1e-9))
        return [round(k * step, 12) for k in range(first, last + 1)]


@dataclass(frozen=True)
class Series:
    """One thing drawn in a chart."""

    label: str
    values: Float[np.ndarray, " points"]
    kind: str = "line"
    """line, points, both, bars or band."""
    upper: Float[np.ndarray, " points"] | None = None
    """Upper edge of a band; `values` is the lower one."""
    colour: int = 0
    """Which colour of the style sheet."""


@dataclass(frozen=True)
class Mark:
    """A line across a chart with its name."""

    label: str
    x: float | None = None
    y: float | None = None


@dataclass(frozen=True)
class _Frame:
    x: Axis
    y: Axis
    height: float = HEIGHT
    inner_width: float = field(default=WIDTH - _LEFT - _RIGHT, init=False)

    @property
    def inner_height(self) -> float:
        return self.height - _TOP - _BOTTOM

    def across(self, values: Float[np.ndarray, " points"]) -> Float[np.ndarray, " points"]:
        return _LEFT + self.inner_width * np.clip(self.x.place(values), -0.02, 1.02)

    def down(self, values: Float[np.ndarray, " points"]) -> Float[np.ndarray, " points"]:
        return _TOP + self.inner_height * (1 - np.clip(self.y.place(values), -0.02, 1.02))

    def axes(self) -> list[Markup]:
        bottom = _TOP + self.inner_height
        parts = []
        for tick in self.y.ticks():
            (y,) = self.down(np.array([tick]))
            parts += [
                element("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=y, y2=y, class_="grid"),
                _words(self.y.describe(tick), _LEFT - 8, y + 4, "end"),
            ]
        for tick in self.x.ticks():
            (x,) = self.across(np.array([tick]))
            parts += [
                element("line", x1=x, x2=x, y1=bottom, y2=bottom + 4, class_="axis"),
                _words(self.x.describe(tick), x, bottom + 18, "middle"),
            ]
        middle = _TOP + self.inner_height / 2
        return [
            *parts,
            element("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=bottom, y2=bottom, class_="axis"),
            _words(self.x.label, _LEFT + self.inner_width / 2, self.height - 8, "middle", "label"),
            element(
                "text", self.y.label, class_="label", text_anchor="middle",
                transform=f"translate(14 {middle:.0f}) rotate(-90)",
            ),
        ]  # fmt: skip


def draw_chart(
    title: str,
    x: Float[np.ndarray, " points"],
    series: Sequence[Series],
    axes: tuple[Axis, Axis],
    *,
    marks: Sequence[Mark] = (),
    tips: Sequence[str] | None = None,
) -> Markup:
    """Draw series over common values.

    Args:
        title: What the chart shows, for those who cannot see it.
        x: Values along the horizontal axis, ascending.
        series: What to draw, one on top of the other.
        axes: Horizontal and vertical axis.
        marks: Lines across the chart.
        tips: What to show when the pointer is near each value of `x`; made from names and values of
            the series if not given.
    """
    frame = _Frame(*axes)
    pixels = frame.across(x)
    parts = frame.axes()
    for one in series:
        parts += _draw_series(frame, pixels, one)
    for mark in marks:
        parts += _draw_mark(frame, mark)
    if tips is None:
        tips = [_tip(axes[0], at, series, row) for row, at in enumerate(x)]
    hover = json.dumps([[round(float(p), 1), tip] for p, tip in zip(pixels, tips, strict=True)])
    drawing = element(
        "svg", element("title", title), parts, class_="plot", role="img", tabindex="0",
        viewBox=f"0 0 {WIDTH:.0f} {HEIGHT:.0f}", data_hover=hover, data_top=_TOP,
        data_bottom=_TOP + frame.inner_height,
    )  # fmt: skip
    return element("div", drawing, _legend(series), class_="plot-box")


def draw_plane(
    title: str,
    address: str,
    axes: tuple[Axis, Axis],
    points: Sequence[tuple[float, float, str]] = (),
) -> Markup:
    """Draw a picture that fills both axes, with named points on top.

    Args:
        title: What is shown, for those who cannot see it.
        address: The picture, as an address.
        axes: Horizontal and vertical axis.
        points: Places with their names.
    """
    frame = _Frame(*axes, height=_SQUARE)
    parts = frame.axes()
    parts.append(
        element(
            "image", href=address, x=_LEFT, y=_TOP, width=frame.inner_width,
            height=frame.inner_height, preserveAspectRatio="none",
        )
    )  # fmt: skip
    for x, y, name in points:
        (across,), (down,) = frame.across(np.array([x])), frame.down(np.array([y]))
        parts += [
            element("circle", cx=float(across), cy=float(down), r=5, class_="place"),
            _words(name, float(across) + 9, float(down) + 4, "start", "place-name"),
        ]
    drawing = element(
        "svg", element("title", title), parts, class_="plot", role="img",
        viewBox=f"0 0 {WIDTH:.0f} {_SQUARE:.0f}",
    )  # fmt: skip
    return element("div", drawing, class_="plot-box")


def draw_histogram(
    title: str, values: Float[np.ndarray, " values"], label: str, counted: str, bins: int = 60
) -> Markup:
    """Draw how often values occur, without the rarest at both ends if these lie far away."""
    low, high = np.percentile(values, (0.1, 99.9))
    low, high = (low, high) if high > low else (low - 0.5, low + 0.5)
    counts, edges = np.histogram(values, bins, (low, high))
    centres = 0.5 * (edges[1:] + edges[:-1])
    axes = (
        Axis(label, (float(low), float(high))),
        Axis(counted, (0.0, 1.05 * max(1.0, float(counts.max())))),
    )
    tips = [
        f"{number_text(a)} … {number_text(b)}\n{count:,} {counted}"
        for (a, b), count in zip(pairwise(edges), counts, strict=True)
    ]
    bars = Series(counted, counts.astype(np.float64), "bars")
    return draw_chart(title, centres, [bars], axes, tips=tips)


def resolution_axis(voxel_size: float) -> Axis:
    """Make the axis of frequencies in 1/Å, which are written as resolutions."""
    limit = 0.5 / voxel_size
    marked, last = [0.0], 0.0
    for resolution in _RESOLUTIONS:
        if 1 / resolution - last >= _LEAST_GAP * limit:
            last = 1 / resolution
            marked.append(last)
    return Axis("resolution (Å)", (0.0, limit), describe=resolution_text, marked=tuple(marked))


def resolution_text(frequency: float) -> str:
    """Write a frequency as a resolution in Å.

    Example:
        >>> resolution_text(0.0), resolution_text(0.08)
        ('∞', '12.5')
    """
    return "∞" if frequency <= 0 else f"{1 / frequency:.3g}"


def spanning_axis(
    label: str, *values: Float[np.ndarray, "..."], is_logarithmic: bool = False
) -> Axis:
    """Make an axis that holds all values with some room; not finite ones do not count."""
    each = np.concatenate([np.ravel(part) for part in values])
    each = each[np.isfinite(each)]
    low, high = (float(each.min()), float(each.max())) if each.size else (0.0, 1.0)
    if is_logarithmic:
        high = high if high > 0 else 1.0
        positive = each[each > _LEAST_SHARE * high]
        low = float(positive.min()) if positive.size else _LEAST_SHARE * high
        return Axis(label, (low / 1.3, high * 1.3), is_logarithmic=True)
    room = 0.05 * (high - low) or 0.5
    return Axis(label, (0.0 if low == 0 else low - room, high + room))


def _draw_series(frame: _Frame, x: Float[np.ndarray, " points"], series: Series) -> list[Markup]:
    y = frame.down(np.nan_to_num(series.values))
    name = f"series s{series.colour % 6}"
    if series.kind == "band" and series.upper is not None:
        back = frame.down(np.nan_to_num(series.upper))[::-1]
        outline = _points(np.concatenate([x, x[::-1]]), np.concatenate([y, back]))
        return [element("polygon", points=outline, class_=f"{name} band")]
    if series.kind == "bars":
        return _draw_bars(frame, x, y, name)
    parts = []
    if series.kind in ("line", "both"):
        known = np.isfinite(series.values)
        parts.append(element("polyline", points=_points(x[known], y[known]), class_=f"{name} line"))
    if series.kind in ("points", "both"):
        parts += [
            element("circle", cx=float(a), cy=float(b), r=3.5, class_=f"{name} dot")
            for a, b, value in zip(x, y, series.values, strict=True)
            if np.isfinite(value)
        ]
    return parts


def _draw_bars(
    frame: _Frame, x: Float[np.ndarray, " points"], y: Float[np.ndarray, " points"], name: str
) -> list[Markup]:
    room = float(np.diff(x).min()) if len(x) > 1 else 40.0
    width = max(0.5, min(0.8 * room if room > 8 else room - 0.5, 40.0))
    bottom = _TOP + frame.inner_height
    return [
        element(
            "rect", x=float(a) - width / 2, y=float(b), width=width,
            height=max(0.0, bottom - float(b)), class_=f"{name} bar",
        )
        for a, b in zip(x, y, strict=True)
    ]  # fmt: skip


def _draw_mark(frame: _Frame, mark: Mark) -> list[Markup]:
    parts = []
    if mark.y is not None:
        (y,) = frame.down(np.array([mark.y]))
        parts += [
            element("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=y, y2=y, class_="mark"),
            _words(mark.label, _LEFT + 6, y - 5, "start", "note"),
        ]
    if mark.x is not None:
        (x,) = frame.across(np.array([mark.x]))
        right = x < WIDTH - 120
        parts += [
            element("line", x1=x, x2=x, y1=_TOP, y2=_TOP + frame.inner_height, class_="mark"),
            _words(
                mark.label, x + (5 if right else -5), _TOP + 11, "start" if right else "end", "note"
            ),
        ]
    return parts


def _legend(series: Sequence[Series]) -> Markup | str:
    named = [one for one in series if one.label]
    if len(named) < 2:
        return ""
    entries = [
        element("li", element("span", class_=f"key s{one.colour % 6} {one.kind}"), one.label)
        for one in named
    ]
    return element("ul", entries, class_="legend")


def _tip(axis: Axis, at: float, series: Sequence[Series], row: int) -> str:
    lines = [f"{axis.label}: {axis.describe(float(at))}"]
    for one in series:
        if not np.isfinite(one.values[row]):
            continue
        text = number_text(float(one.values[row]))
        if one.upper is not None:
            text += f" … {number_text(float(one.upper[row]))}"
        lines.append(f"{one.label}: {text}")
    return "\n".join(lines)


def _words(text: str, x: float, y: float, anchor: str, kind: str = "tick") -> Markup:
    return element("text", text, x=float(x), y=float(y), text_anchor=anchor, class_=kind)


def _points(x: Float[np.ndarray, " points"], y: Float[np.ndarray, " points"]) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))


def _nice_step(rough: float) -> float:
    power = 10.0 ** np.floor(np.log10(rough))
    return float(next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9)))


def _logarithmic_ticks(low: float, high: float) -> list[float]:
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for multiples in ((1,), (1, 3), (1, 2, 5), (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 7)):
        step = max(1, len(powers) // 7) if multiples == (1,) else 1
        ticks = [m * 10.0**p for p in powers if p % step == 0 for m in multiples]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) >= 3:
            return inside
    return inside
