"""Pictures of densities over latent coordinates."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recovar.density.along import PathDensity
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
    _draw_band(axes, density, raw)
    for number, state in enumerate(states):
        place = float(state.position[coordinate])
        axes.axvline(place, color=COLOURS[1], linewidth=1, linestyle="--")
        axes.annotate(
            f"{number}: {100 * state.population:.0f} %", (place, 1), xytext=(3, -3),
            xycoords=("data", "axes fraction"), textcoords="offset points", va="top",
            fontsize=8, color=INK,
        )  # fmt: skip
    axes.set_xlabel(f"coordinate {coordinate + 1}")
    return figure


def draw_path_density(
    along: PathDensity, raw: Density, length: float, stops: Float64[np.ndarray, " stops"]
) -> Figure:
    """Draw the density along a path, with its band and the kernel density.

    Args:
        along: The density.
        raw: The kernel density of where images are along the path.
        length: Of the path; what is beyond 0 and this is on its straight ends.
        stops: Arc lengths at which volumes are made.
    """
    figure, axes = make_axes(6.4, 4.0)
    density = along.found.density
    _draw_band(axes, density, raw)
    for end in (0.0, length):
        axes.axvline(end, color=MUTED, linewidth=1, linestyle=":")
    heights = density.at(stops[:, None])
    axes.plot(
        stops, heights, "o", color=COLOURS[1], markeredgecolor="white", markersize=6, zorder=3
    )
    for number, stop in enumerate(zip(stops, heights, strict=True)):
        axes.annotate(
            str(number), stop, xytext=(4, 4), textcoords="offset points", fontsize=8, color=INK
        )
    axes.set_xlabel("arc length from the start")
    axes.set_title(f"squared distance from the path: {along.misfit:.2f} of errors'", fontsize=9)
    return figure


def _draw_band(axes: Axes, density: Density, raw: Density) -> None:
    if density.bands is not None:
        axes.fill_between(
            density.axes[0], *density.bands, color=COLOURS[0], alpha=0.2, linewidth=0,
            label="95 % band",
        )  # fmt: skip
    axes.plot(density.axes[0], density.values, color=COLOURS[0], label="without errors")
    axes.plot(raw.axes[0], raw.values, color=MUTED, linewidth=1.2, label="as observed")
    axes.set_xlim(density.axes[0][0], density.axes[0][-1])
    # Bands may be many times as high where little is known.
    top = 2 * max(density.values.max(), raw.values.max())
    axes.set_ylim(0, float(top if density.bands is None else min(top, 1.1 * density.bands.max())))
    axes.set_ylabel("density")
    axes.legend(frameon=False, fontsize=9)


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
