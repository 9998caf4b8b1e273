"""Pictures of results, each a matplotlib figure that nothing else has touched."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from recovar.core.ctf import Optics, transfer_function
from recovar.core.grid import Grid
from recovar.regularization import resolution_at

INK, MUTED = "#1f2933", "#9aa5b1"
COLOURS = ("#2b6cb0", "#dd6b20", "#2f855a", "#805ad5")
_DENSITY = "viridis"
_SIGNED = "RdBu_r"
_MOST_BARS = 40


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file."""
    figure.savefig(path, format="png", dpi=150)


def make_axes(width: float = 6.0, height: float = 4.0) -> tuple[Figure, Axes]:
    """Make a figure with one plot that looks as all of them do."""
    figure = Figure((width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _label_frequencies(axes: Axes, voxel_size: float) -> None:
    """Mark frequencies by their resolution in Å."""

    def describe(frequency: float, _: object) -> str:
        return "∞" if frequency <= 0 else f"{1 / frequency:.3g}"

    axes.set_xlim(0, 0.5 / voxel_size)
    axes.xaxis.set_major_locator(MaxNLocator(7))
    axes.xaxis.set_major_formatter(FuncFormatter(describe))
    axes.set_xlabel("resolution (Å)")


def _frequencies(count: int, grid: Grid) -> Float[np.ndarray, " shells"]:
    return np.arange(count) / (grid.size * grid.voxel_size)


def draw_fsc(
    curves: Mapping[str, Float[np.ndarray, " shells"]], grid: Grid, threshold: float = 0.143
) -> Figure:
    """Draw correlations of half-maps, with the resolution at which each falls below a threshold."""
    figure, axes = make_axes()
    axes.axhline(threshold, color=MUTED, linewidth=1, linestyle="--")
    axes.annotate(
        f"{threshold:g}", (0.01, threshold), xycoords=("axes fraction", "data"), fontsize=8,
        color=MUTED, ha="left", va="bottom",
    )  # fmt: skip
    for (label, curve), colour in zip(curves.items(), COLOURS, strict=False):
        reached = resolution_at(curve, threshold, grid)
        axes.plot(
            _frequencies(len(curve), grid), curve, color=colour, label=f"{label}: {reached:.3g} Å"
        )
        axes.plot(1 / reached, threshold, "o", color=colour, markersize=5)
    axes.set_ylim(min(-0.05, *(float(curve.min()) for curve in curves.values())), 1.03)
    axes.set_ylabel("correlation of half-maps")
    axes.legend(frameon=False, fontsize=9)
    _label_frequencies(axes, grid.voxel_size)
    return figure


def draw_transfer_function(optics: Optics, pixel_size: float) -> Figure:
    """Draw the transfer function of one image along both axes of its astigmatism."""
    figure, axes = make_axes()
    frequency = np.linspace(0, 0.5 / pixel_size, 1000)
    angle = float(np.asarray(optics.defocus_angle)[0])
    for name, turn, defocus, colour in (
        ("major", angle, optics.defocus_u, COLOURS[0]),
        ("minor", angle + np.pi / 2, optics.defocus_v, COLOURS[1]),
    ):
        curve = transfer_function(optics, frequency * np.cos(turn), frequency * np.sin(turn))[0]
        label = f"{name} axis: defocus {float(np.asarray(defocus)[0]):,.0f} Å"
        axes.plot(frequency, curve, color=colour, linewidth=1, label=label)
    axes.axhline(0, color=MUTED, linewidth=1)
    axes.set_ylim(-1.05, 1.05)
    axes.set_ylabel("transfer function")
    axes.legend(frameon=False, fontsize=9)
    _label_frequencies(axes, pixel_size)
    return figure


def draw_noise(
    noise: Float[np.ndarray, " shells"], power: Float[np.ndarray, " shells"], grid: Grid
) -> Figure:
    """Draw the power of noise and of images, per pixel of white noise with the same power."""
    figure, axes = make_axes()
    frequency = _frequencies(len(noise), grid)
    axes.plot(frequency[1:], power[1:] / grid.size**2, color=COLOURS[1], label="images")
    axes.plot(frequency[1:], noise[1:] / grid.size**2, color=COLOURS[0], label="noise")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda power, _: f"{power:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel("power (squared units of a pixel)")
    axes.legend(frameon=False, fontsize=9)
    _label_frequencies(axes, grid.voxel_size)
    return figure


def draw_eigenvalues(
    eigenvalues: Float[np.ndarray, " pcs"], reliability: Float[np.ndarray, " pcs"]
) -> Figure:
    """Draw the variance along each component, and how much of it images determine."""
    figure, axes = make_axes()
    shown = slice(0, _MOST_BARS)
    number = np.arange(1, len(eigenvalues[shown]) + 1)
    positive = np.maximum(eigenvalues[shown], 1e-6 * float(eigenvalues.max()))
    axes.plot(number, positive, "o-", color=COLOURS[0], markersize=5)
    axes.set_yscale("log")
    axes.set_xlabel("component")
    axes.set_ylabel("eigenvalue (variance of z)", color=COLOURS[0])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    right = axes.twinx()
    right.bar(number, reliability[shown], width=0.55, color=COLOURS[1], alpha=0.3)
    right.set_ylim(0, 1)
    right.set_ylabel("reliability of coordinates", color=COLOURS[1])
    right.spines["top"].set_visible(False)
    return figure


def draw_contrast(contrast: Float[np.ndarray, " images"]) -> Figure:
    """Draw how contrasts are distributed."""
    figure, axes = make_axes()
    axes.hist(contrast, bins=60, color=COLOURS[0], alpha=0.85)
    axes.axvline(1, color=MUTED, linewidth=1, linestyle="--")
    axes.set_xlabel("contrast")
    axes.set_ylabel("images")
    axes.set_title(
        f"mean {contrast.mean():.3f}, standard deviation {contrast.std():.3f}", fontsize=10
    )
    return figure


def draw_embedding(
    coordinates: Float[np.ndarray, "images zdim"],
    names: tuple[str, str] = ("coordinate 1", "coordinate 2"),
) -> Figure:
    """Draw the density of images along the first two coordinates, or along the only one."""
    figure, axes = make_axes(5.6, 5.0)
    if coordinates.shape[1] == 1:
        axes.hist(coordinates[:, 0], bins=80, color=COLOURS[0])
        axes.set_ylabel("images")
    else:
        first, second = coordinates[:, 0], coordinates[:, 1]
        limits = [np.percentile(each, (0.2, 99.8)) for each in (first, second)]
        margins = [0.06 * np.ptp(each) + 1e-12 for each in limits]
        extent = [
            each + np.array([-margin, margin]) for each, margin in zip(limits, margins, strict=True)
        ]
        axes.grid(visible=False)
        cells = axes.hexbin(
            first, second, gridsize=int(np.clip(len(first) ** 0.5, 12, 70)), mincnt=1,
            cmap=_DENSITY, norm=LogNorm(), linewidths=0.1, extent=(*extent[0], *extent[1]),
        )  # fmt: skip
        axes.set_xlim(*extent[0])
        axes.set_ylim(*extent[1])
        axes.set_ylabel(names[1])
        figure.colorbar(cells, label="images", shrink=0.8)
    axes.set_xlabel(names[0])
    return figure


def draw_map(
    volume: Float[np.ndarray, "z y x"], mask: Float[np.ndarray, "z y x"], grid: Grid
) -> Figure:
    """Draw central slices and projections along the axes, with the outline of a mask."""
    figure = Figure((8.4, 5.8), layout="constrained")
    panels = figure.subplots(2, 3)
    middle = grid.size // 2
    slices = [np.take(volume, middle, axis) for axis in range(3)]
    cuts = [np.take(mask, middle, axis) for axis in range(3)]
    sums = [volume.sum(axis) for axis in range(3)]
    shadows = [mask.max(axis) for axis in range(3)]
    for row, (images, outlines) in enumerate(((slices, cuts), (sums, shadows))):
        low, high = np.percentile(np.stack(images), (0.5, 99.8))
        for column, (image, outline) in enumerate(zip(images, outlines, strict=True)):
            axes = panels[row, column]
            _show(axes, image, grid, "gray", (low, high))
            _outline(axes, outline, 0.5, grid, COLOURS[1])
            axes.set_title(f"{('slice', 'projection')[row]} across {'zyx'[column]}", fontsize=9)
    return figure


def draw_components(
    volumes: Float[np.ndarray, "pcs z y x"],
    eigenvalues: Float[np.ndarray, " pcs"],
    mean: Float[np.ndarray, "z y x"],
    grid: Grid,
    most: int = 6,
) -> Figure:
    """Draw slices of the first components where they vary most, with the outline of the mean.

    Values are those of one standard deviation along a component.
    """
    count = min(most, len(volumes))
    deviations = volumes[:count] * np.sqrt(np.maximum(eigenvalues[:count], 0))[:, None, None, None]
    centre = np.unravel_index(np.argmax((deviations**2).sum(0)), mean.shape)
    outline = 0.3 * float(np.percentile(mean, 99.8))
    figure = Figure((6.6, 2.1 * count), layout="constrained")
    panels = figure.subplots(count, 3, squeeze=False)
    for number, (row, volume) in enumerate(zip(panels, deviations, strict=True)):
        limit = float(np.percentile(np.abs(volume), 99.95)) or 1.0
        for axis, axes in enumerate(row):
            _show(axes, np.take(volume, centre[axis], axis), grid, _SIGNED, (-limit, limit))
            _outline(axes, np.take(mean, centre[axis], axis), outline, grid, MUTED)
            axes.set_title(f"component {number + 1}, slice across {'zyx'[axis]}", fontsize=8)
        bar = figure.colorbar(row[-1].images[0], ax=row.tolist(), shrink=0.85, pad=0.01)
        bar.ax.tick_params(labelsize=7)
    return figure


def _outline(
    axes: Axes, image: Float[np.ndarray, "y x"], level: float, grid: Grid, colour: str
) -> None:
    if image.min() < level < image.max():
        half = 0.5 * grid.size * grid.voxel_size
        ticks = np.linspace(-half, half, grid.size, endpoint=False) + 0.5 * grid.voxel_size
        axes.contour(ticks, ticks, image, [level], colors=[colour], linewidths=0.8)


def _show(
    axes: Axes,
    image: Float[np.ndarray, "y x"],
    grid: Grid,
    colours: str,
    limits: tuple[float, float],
) -> None:
    half = 0.5 * grid.size * grid.voxel_size
    axes.imshow(
        image, cmap=colours, vmin=limits[0], vmax=limits[1], origin="lower",
        extent=(-half, half, -half, half), interpolation="nearest",
    )  # fmt: skip
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.tick_params(labelsize=7, colors=INK)
    axes.set_xlabel("Å", fontsize=7, labelpad=1)
