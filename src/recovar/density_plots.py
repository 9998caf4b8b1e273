"""Pictures of densities over latent coordinates."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from recovar.density.record import Density
from recovar.density.states import StableState
from recovar.plots import COLOURS, INK, MUTED, make_axes


def draw_density(
    density: Density, raw: Density, states: Sequence[StableState], coordinate: int
) -> Figure:
    """Draw a density along one coordinate, with its band, the kernel density and stable states.

    Args:
        density: Along that coordinate.
        raw: The same with errors.
        states: Whose positions are marked.
        coordinate: Number of the coordinate, from 0.
    """
    figure, axes = make_axes()
    if density.bands is not None:
        axes.fill_between(
            density.axes[0], *density.bands, color=COLOURS[0], alpha=0.2, linewidth=0,
            label="95 % band",
        )  # fmt: skip
    axes.plot(density.axes[0], density.values, color=COLOURS[0], label="without errors")
    axes.plot(raw.axes[0], raw.values, color=MUTED, linewidth=1.2, label="as observed")
    for number, state in enumerate(states):
        place = float(state.position[coordinate])
        axes.axvline(place, color=COLOURS[1], linewidth=1, linestyle="--")
        axes.annotate(
            f"{number}: {100 * state.population:.0f} %", (place, 1), xytext=(3, -3),
            xycoords=("data", "axes fraction"), textcoords="offset points", va="top",
            fontsize=8, color=INK,
        )  # fmt: skip
    axes.set_xlim(density.axes[0][0], density.axes[0][-1])
    # Bands may be many times as high where little is known.
    axes.set_ylim(0, 2 * float(max(density.values.max(), raw.values.max())))
    axes.set_xlabel(f"coordinate {coordinate + 1}")
    axes.set_ylabel("density")
    axes.legend(frameon=False, fontsize=9)
    return figure


def draw_density_pair(
    density: Density, states: Sequence[StableState], pair: tuple[int, int]
) -> Figure:
    """Draw a density along two coordinates, and stable states in it.

    Args:
        density: Along these coordinates.
        states: Whose positions are marked.
        pair: Numbers of the coordinates, from 0.
    """
    figure, axes = make_axes(5.6, 5.0)
    axes.grid(visible=False)
    first, second = density.axes
    shown = axes.pcolormesh(first, second, density.values.T, cmap="viridis", rasterized=True)
    levels = density.values.max() * np.array([0.05, 0.2, 0.5, 0.8])
    axes.contour(first, second, density.values.T, levels, colors="white", linewidths=0.5)
    for number, state in enumerate(states):
        place: Float[np.ndarray, " 2"] = state.position[list(pair)]
        axes.plot(*place, "o", color=COLOURS[1], markeredgecolor="white", markersize=7)
        axes.annotate(
            f"{number}: {100 * state.population:.0f} %", (place[0], place[1]), xytext=(5, 5),
            textcoords="offset points", fontsize=9, color="white",
        )  # fmt: skip
    axes.set_xlabel(f"coordinate {pair[0] + 1}")
    axes.set_ylabel(f"coordinate {pair[1] + 1}")
    figure.colorbar(shown, label="density", shrink=0.8)
    return figure
