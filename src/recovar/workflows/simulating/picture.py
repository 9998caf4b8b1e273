"""The picture of `recovar simulate`: true volumes, images without noise, and images."""

import numpy as np
from jaxtyping import Float, Int, Num
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.spatial import KDTree

from recovar.acquisition import Kind
from recovar.core.fourier import to_spectrum
from recovar.core.frequencies import Disc
from recovar.simulator import Simulation

_INK, _MUTED, _SIGNAL, _NOISE = "#1f2933", "#7b8794", "#2b6cb0", "#dd6b20"
_MEASURED = 200
"""Images whose power is drawn."""
_FEW = 6
"""A coordinate with so few values is told by colour."""
_MOST_BARS = 200
_COLOURS = ("#2b6cb0", "#dd6b20", "#2f855a", "#805ad5", "#b83280", "#4a5568")


def draw_data_set(
    simulation: Simulation,
    shown: Num[np.ndarray, "states coordinates"],
    latent: Num[np.ndarray, "images coordinates"],
    meaning: str,
) -> Figure:
    """Draw volumes from one end of the motion to the other, images, and how both are distributed.

    Args:
        simulation: The data set.
        shown: Some states of the specimen, in an order that makes sense. Only images near to them
            are made, so that few volumes are.
        latent: Coordinates of the state of every image.
        meaning: What they are.
    """
    figure = Figure((12.5, 6.6), layout="constrained")
    columns = figure.add_gridspec(1, 2, width_ratios=(2.1, 1.0))
    left, right = figure.add_subfigure(columns[0]), figure.add_subfigure(columns[1])
    near = _find_images(simulation, shown)
    first = near[:, 0]
    pictures = {
        "true volumes, seen along z": np.stack([simulation.volume(s).sum(0) for s in shown]),
        "images of them without noise": simulation.signals(first),
        "images": simulation.images(first),
    }
    rows = left.subplots(len(pictures), len(shown), squeeze=False)
    for axes, (title, row) in zip(rows, pictures.items(), strict=True):
        _draw_row(axes, row, title)
    states, powers = right.subplots(2, 1)
    _draw_states(states, latent, meaning)
    _draw_powers(powers, simulation, np.unique(near))
    return figure


def _find_images(
    simulation: Simulation, shown: Num[np.ndarray, "states coordinates"]
) -> Int[np.ndarray, "states near"]:
    """Find the images of a molecule that are nearest to each state, the nearest first."""
    truth = simulation.truth
    rows = np.flatnonzero(truth.kind == Kind.MOLECULE)
    count = min(_MEASURED // len(shown) + 1, len(rows))
    nearest = np.asarray(KDTree(truth.states[rows]).query(shown, count)[1])
    return rows[nearest.reshape(len(shown), count)]


def _draw_row(row: np.ndarray, pictures: Float[np.ndarray, "shown y x"], title: str) -> None:
    low, high = np.percentile(pictures, (0.2, 99.8))
    for axes in row:
        axes.set_axis_off()
    for axes, picture in zip(row, pictures, strict=True):
        axes.imshow(picture, cmap="gray", vmin=low, vmax=high)
    row[0].set_title(title, fontsize=10, color=_INK, loc="left")


def _draw_states(axes: Axes, latent: Num[np.ndarray, "images coordinates"], meaning: str) -> None:
    if latent.shape[1] == 1:
        distinct, counts = np.unique(latent[:, 0], return_counts=True)
        if len(distinct) <= _MOST_BARS:
            gap = float(np.diff(distinct).min()) if len(distinct) > 1 else 1.0
            axes.bar(distinct, counts, width=0.8 * gap, color=_SIGNAL)
        else:
            axes.hist(latent[:, 0], 60, color=_SIGNAL)
        axes.set_ylabel("images", fontsize=9)
        axes.set_xlabel("state", fontsize=9)
    elif len(kinds := np.unique(latent[:, 1])) <= _FEW:
        parts = [latent[latent[:, 1] == kind, 0] for kind in kinds]
        names = [f"second coordinate {kind:g}" for kind in kinds]
        axes.hist(parts, 40, stacked=True, color=_COLOURS[: len(kinds)], label=names)
        axes.legend(frameon=False, fontsize=8)
        axes.set_ylabel("images", fontsize=9)
        axes.set_xlabel("state, first coordinate", fontsize=9)
    else:
        axes.plot(*latent[:, :2].T, ".", color=_SIGNAL, markersize=2, alpha=0.5, rasterized=True)
        axes.set_xlabel("state, first coordinate", fontsize=9)
        axes.set_ylabel("second coordinate", fontsize=9)
    axes.set_title(meaning, fontsize=9, color=_INK, wrap=True)
    _make_plain(axes)


def _draw_powers(axes: Axes, simulation: Simulation, rows: Int[np.ndarray, " chosen"]) -> None:
    grid = simulation.grid
    signals = simulation.signals(rows)
    disc = Disc(grid.size, grid.largest_radius)
    power = (np.abs(disc.from_spectra(to_spectrum(signals, 2))) ** 2).mean(0)
    power = np.bincount(disc.shells, power) / np.bincount(disc.shells)
    frequency = np.arange(1, grid.shells) / (grid.size * grid.voxel_size)
    noise = simulation.truth.noise[1 : grid.shells]
    axes.semilogy(frequency, noise, color=_NOISE, label="noise")
    axes.semilogy(frequency, power[1:], color=_SIGNAL, label="signal")
    axes.set_xlabel("frequency (1/Å)", fontsize=9)
    axes.set_ylabel("power", fontsize=9)
    axes.legend(frameon=False, fontsize=9)
    _make_plain(axes)


def _make_plain(axes: Axes) -> None:
    axes.tick_params(labelsize=8, colors=_INK)
    axes.spines[["top", "right"]].set_visible(False)
