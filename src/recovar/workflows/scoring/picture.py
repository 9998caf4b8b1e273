"""The picture of `recovar score`: curves, clouds and histograms behind the numbers."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from recovar.core.grid import Grid
from recovar.metrics import sample
from recovar.workflows.scoring.files import Found
from recovar.workflows.scoring.table import Section
from recovar.workflows.scoring.truth import Truth

_INK, _MUTED = "#1f2933", "#9aa5b1"
_COLOURS = ("#2b6cb0", "#dd6b20", "#2f855a", "#805ad5", "#b83280", "#718096")
_LATENT, _LABELS = "viridis", "tab10"
_MOST_DOTS = 5_000
_MOST_LABELS = 10
_MOST_CURVES = 5
_MOST_COMPONENTS = 20
_ROWS, _COLUMNS = 2, 3
_FREQUENCIES = {
    "masked": "all frequencies, with the corners of the box",
    "ball": "up to the largest frequency of images",
    "lowpass": "up to half of it",
}

Curves = Mapping[str, Float[np.ndarray, " points"]]


def draw_scores(truth: Truth, found: Found, sections: Sequence[Section]) -> Figure:
    """Draw everything that was scored; what was not leaves its panel empty, and says so."""
    curves = {section.title: section.curves for section in sections}
    figure = Figure((13.0, 7.8), layout="constrained")
    panels = figure.subplots(_ROWS, _COLUMNS).ravel().tolist()
    correlations = {**curves.get("Mean", {}), **_some(curves.get("States", {}))}
    draw: list[tuple[str, Curves | None, Callable[[Axes], None]]] = [
        (
            "correlation with the true volumes",
            correlations,
            lambda axes: _draw_fsc(axes, correlations, truth.grid),
        ),
        (
            "what components hold",
            curves.get("Components"),
            lambda axes: _draw_captured(axes, curves["Components"]),
        ),
        (
            "latent coordinates, coloured by the truth",
            {} if found.coordinates is None else {"z": found.coordinates[:, 0]},
            lambda axes: _draw_latent(axes, truth, found),
        ),
        (
            "volumes of single images",
            curves.get("Volumes of single images"),
            lambda axes: _draw_images(axes, curves["Volumes of single images"], truth.grid),
        ),
        (
            "contrast",
            curves.get("Contrast"),
            lambda axes: _draw_contrast(axes, curves["Contrast"]),
        ),
        (
            "power of the noise",
            curves.get("Noise"),
            lambda axes: _draw_noise(axes, curves["Noise"]["ratio"], truth.grid),
        ),
    ]
    for axes, (title, values, paint) in zip(panels, draw, strict=True):
        axes.set_title(title, fontsize=11, color=_INK, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8, colors=_INK)
        if values:
            paint(axes)
        else:
            _say_nothing(axes)
    return figure


def _some(curves: Curves) -> dict[str, Float[np.ndarray, " points"]]:
    """Take at most so many curves, evenly."""
    names = list(curves)
    chosen = np.unique(np.linspace(0, len(names) - 1, min(len(names), _MOST_CURVES)).astype(int))
    return {names[place]: curves[names[place]] for place in chosen}


def _say_nothing(axes: Axes) -> None:
    axes.set_axis_off()
    axes.set_title(axes.get_title(loc="left"), fontsize=11, color=_MUTED, loc="left")
    axes.text(0.5, 0.5, "not scored", ha="center", va="center", color=_MUTED, fontsize=10)


def _draw_fsc(axes: Axes, curves: Curves, grid: Grid) -> None:
    axes.axhline(0.5, color=_MUTED, linewidth=0.8, linestyle="--")
    for number, (name, curve) in enumerate(curves.items()):
        is_mean = name.startswith("mean")
        axes.plot(
            np.arange(len(curve)) / (grid.size * grid.voxel_size), curve,
            color=_INK if is_mean else _COLOURS[number % len(_COLOURS)],
            linestyle=":" if "unmasked" in name else "-",
            linewidth=1.6 if is_mean else 1.1,
            label=name,
        )  # fmt: skip
    least = min(float(curve.min()) for curve in curves.values())
    axes.set_ylim(min(-0.03, least), 1.03)
    axes.legend(frameon=False, fontsize=7.5, loc="lower left")
    axes.set_ylabel("Fourier shell correlation", fontsize=9)
    _label_frequencies(axes, grid)


def _label_frequencies(axes: Axes, grid: Grid) -> None:
    def describe(frequency: float, _: object) -> str:
        return "∞" if frequency <= 0 else f"{1 / frequency:.3g}"

    axes.set_xlim(0, 0.5 / grid.voxel_size)
    axes.xaxis.set_major_locator(MaxNLocator(7))
    axes.xaxis.set_major_formatter(FuncFormatter(describe))
    axes.set_xlabel("resolution (Å)", fontsize=9)


def _draw_captured(axes: Axes, curves: Curves) -> None:
    names = [name.partition(", ")[2] for name in curves if name.startswith("captured")]
    shown = [name for name in names if name != "unmasked"]
    for name, colour in zip(shown, _COLOURS, strict=False):
        found = curves[f"captured, {name}"][:_MOST_COMPONENTS]
        possible = curves[f"possible, {name}"][: len(found)]
        ranks = np.arange(1, len(found) + 1)
        axes.fill_between(ranks, found, possible, color=colour, alpha=0.08, linewidth=0)
        axes.plot(ranks, possible, color=colour, linewidth=0.9, linestyle="--")
        axes.plot(
            ranks, found, "o-", color=colour, markersize=3.5, linewidth=1.3,
            label=_FREQUENCIES[name],
        )  # fmt: skip
    axes.plot([], [], color=_MUTED, linewidth=0.9, linestyle="--", label="the most possible")
    axes.set_ylim(0, 1.03)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("components", fontsize=9)
    axes.set_ylabel("share of the true variance", fontsize=9)
    axes.legend(frameon=False, fontsize=7.5, loc="lower right")


def _draw_latent(axes: Axes, truth: Truth, found: Found) -> None:
    if found.coordinates is None:
        return
    usable = np.flatnonzero(truth.good[found.rows] & np.isfinite(found.coordinates).all(1))
    chosen = usable[sample(len(usable), _MOST_DOTS)]
    z, rows = found.coordinates[chosen], found.rows[chosen]
    x = z[:, 0]
    alone = z.shape[1] == 1
    y = truth.latent[rows, 0] if alone else z[:, 1]
    labels = truth.labels
    few = labels is not None and len(np.unique(labels)) <= _MOST_LABELS
    colours = labels[rows] if labels is not None else truth.latent[rows, 0]
    dots = axes.scatter(
        x, y, c=colours, cmap=_LABELS if few else _LATENT, vmin=0 if few else None,
        vmax=_MOST_LABELS - 1 if few else None, s=5, linewidths=0, alpha=0.6, rasterized=True,
    )  # fmt: skip
    for limit, values in ((axes.set_xlim, x), (axes.set_ylim, y)):
        low, high = np.percentile(values, (0.2, 99.8))
        margin = 0.08 * (high - low) + 1e-12
        limit(low - margin, high + margin)
    axes.set_xlabel("coordinate 1", fontsize=9)
    axes.set_ylabel("truth" if alone else "coordinate 2", fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])
    if few and labels is not None:
        handles, names = dots.legend_elements(alpha=1)
        axes.legend(handles, names, title="true state", title_fontsize=8, fontsize=8, frameon=False)
    else:
        bar = axes.figure.colorbar(dots, ax=axes, aspect=30, pad=0.02)
        bar.set_label("true state" if labels is not None else "true coordinate 1", fontsize=8)
        bar.ax.tick_params(labelsize=7)
        if bar.solids is not None:
            bar.solids.set_alpha(1)


def _draw_images(axes: Axes, curves: Curves, grid: Grid) -> None:
    names = [name.partition(", ")[2] for name in curves if name.startswith("images")]
    names = [name for name in names if name != "unmasked"] or names
    best = (grid.size / 2 - 1) / grid.size
    low = min(float(curves[f"images, {name}"].min()) for name in names)
    bins = np.linspace(max(-best, low - 0.01), best, 36).tolist()
    for name, colour in zip(names, _COLOURS, strict=False):
        axes.hist(
            curves[f"images, {name}"], bins=bins, color=colour, alpha=0.55,
            label=f"{name}: mean {curves[f'images, {name}'].mean():.3f}",
        )  # fmt: skip
        baseline = curves.get(f"mean for images, {name}")
        if baseline is not None:
            axes.axvline(float(baseline.mean()), color=colour, linewidth=1.2, linestyle="--")
    axes.axvline(best, color=_INK, linewidth=1, label=f"perfect: {best:.3f}")
    axes.plot([], [], color=_MUTED, linestyle="--", label="the mean given to every image")
    axes.set_xlabel("area under the FSC (cycles per pixel)", fontsize=9)
    axes.set_ylabel("images", fontsize=9)
    axes.legend(framealpha=0.9, edgecolor="none", fontsize=7.5, loc="upper left")


def _draw_contrast(axes: Axes, curves: Curves) -> None:
    chosen = sample(len(curves["true"]), _MOST_DOTS)
    true, estimated = curves["true"][chosen], curves["estimated"][chosen]
    low, high = np.percentile(np.concatenate([true, estimated]), (0.1, 99.9))
    axes.plot([low, high], [low, high], color=_MUTED, linewidth=1)
    axes.plot(
        true, estimated, "o", color=_COLOURS[0], markersize=2.2, markeredgewidth=0, alpha=0.5,
        rasterized=True,
    )  # fmt: skip
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_aspect("equal")
    axes.set_xlabel("true", fontsize=9)
    axes.set_ylabel("estimated", fontsize=9)


def _draw_noise(axes: Axes, ratios: Float[np.ndarray, " shells"], grid: Grid) -> None:
    frequency = np.arange(1, len(ratios) + 1) / (grid.size * grid.voxel_size)
    axes.axhline(1, color=_MUTED, linewidth=1)
    axes.plot(frequency, ratios, "o-", color=_COLOURS[0], markersize=3.5, linewidth=1.3)
    spread = max(0.05, float(np.abs(ratios - 1).max()) * 1.15)
    axes.set_ylim(max(0.0, 1 - spread), 1 + spread)
    axes.set_ylabel("estimated / true", fontsize=9)
    _label_frequencies(axes, grid)
