"""The picture of `recovar simulate`: true volumes, images without noise, and images."""

import numpy as np
from jaxtyping import Float, Int, Num
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recovar.core.fourier import to_spectrum
from recovar.core.frequencies import Disc
from recovar.simulator import Simulation

_INK, _MUTED, _SIGNAL, _NOISE = "#1f2933", "#7b8794", "#2b6cb0", "#dd6b20"
_SHOWN = 5
"""Volumes and images in a row."""
_MEASURED = 200
"""Images whose power is drawn."""


def draw_data_set(
    simulation: Simulation,
    volumes: Float[np.ndarray, "states z y x"],
    latent: Num[np.ndarray, "images coordinates"],
    meaning: str,
) -> Figure:
    """Draw volumes from one end of the motion to the other, images, and how both are distributed.

    Args:
        simulation: The data set.
        volumes: Some true volumes, in an order that makes sense.
        latent: State of every image.
        meaning: What the coordinates of a state are.
    """
    figure = Figure((12.5, 6.6), layout="constrained")
    columns = figure.add_gridspec(1, 2, width_ratios=(2.1, 1.0))
    left, right = figure.add_subfigure(columns[0]), figure.add_subfigure(columns[1])
    rows = left.subplots(3, _SHOWN, squeeze=False)
    chosen = _spread(len(volumes))
    shadows = [volumes[number].sum(0) for number in chosen]
    images = _spread(len(simulation))
    signals, pictures = simulation.signals(images), simulation.images(images)
    for axes, row, title in zip(
        rows,
        (shadows, signals, pictures),
        ("true volumes, seen along z", "images without noise", "images"),
        strict=True,
    ):
        _draw_row(axes, row, title)
    states, powers = right.subplots(2, 1)
    _draw_states(states, latent, meaning)
    _draw_powers(powers, simulation)
    return figure


def _spread(count: int) -> Int[np.ndarray, " shown"]:
    return np.unique(np.linspace(0, count - 1, _SHOWN).astype(np.int64))


def _draw_row(row: np.ndarray, pictures: "list[np.ndarray] | np.ndarray", title: str) -> None:
    low, high = np.percentile(np.stack(list(pictures)), (0.2, 99.8))
    for axes in row:
        axes.set_axis_off()
    for axes, picture in zip(row, pictures, strict=False):
        axes.imshow(picture, cmap="gray", vmin=low, vmax=high)
    row[0].set_title(title, fontsize=10, color=_INK, loc="left")


def _draw_states(axes: Axes, latent: Num[np.ndarray, "images coordinates"], meaning: str) -> None:
    if latent.shape[1] == 1:
        distinct, counts = np.unique(latent[:, 0], return_counts=True)
        if len(distinct) <= _MEASURED:
            gap = float(np.diff(distinct).min()) if len(distinct) > 1 else 1.0
            axes.bar(distinct, counts, width=0.8 * gap, color=_SIGNAL)
        else:
            axes.hist(latent[:, 0], 60, color=_SIGNAL)
        axes.set_ylabel("images", fontsize=9)
        axes.set_xlabel("state", fontsize=9)
    else:
        axes.plot(*latent[:, :2].T, ".", color=_SIGNAL, markersize=2, alpha=0.5, rasterized=True)
        axes.set_xlabel("state, first coordinate", fontsize=9)
        axes.set_ylabel("second coordinate", fontsize=9)
    axes.set_title(meaning, fontsize=9, color=_INK, wrap=True)
    _make_plain(axes)


def _draw_powers(axes: Axes, simulation: Simulation) -> None:
    grid = simulation.grid
    signals = simulation.signals(np.arange(min(_MEASURED, len(simulation))))
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
