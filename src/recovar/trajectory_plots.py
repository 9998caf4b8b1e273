"""Pictures of paths through latent space."""

import numpy as np
from jaxtyping import Float64, Int64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from recovar.plots import COLOURS, INK, make_axes
from recovar.trajectory import LatentPath

_DENSITY = "Greys"
_HALO = withStroke(linewidth=2, foreground="white")


def draw_density_along(path: LatentPath, chosen: Int64[np.ndarray, " states"]) -> Figure:
    """Draw the density along a path, and where volumes are made."""
    figure, axes = make_axes(6.4, 4.0)
    relative = path.density / path.landscape.values.max()
    axes.plot(path.arc_length, relative, color=COLOURS[0])
    _mark(axes, np.stack([path.arc_length, relative], axis=1), chosen)
    axes.set_ylim(0, 1.12 * max(float(relative.max()), 1e-12))
    axes.set_xlabel("arc length from the start")
    axes.set_ylabel("density, relative to its largest value")
    axes.set_title(path.remark, fontsize=8, color=INK)
    return figure


def draw_path_over(
    path: LatentPath, pair: tuple[int, int], chosen: Int64[np.ndarray, " states"]
) -> Figure:
    """Draw a path over the density along two coordinates, the others integrated out.

    Args:
        path: The path.
        pair: Two coordinates of the density, counted from 0.
        chosen: Points that volumes are made at.
    """
    figure, axes = make_axes(5.8, 5.0)
    axes.grid(visible=False)
    below = path.landscape.marginal(pair)
    shown = axes.pcolormesh(
        *below.axes, (below.values / below.values.max()).T, cmap=_DENSITY, shading="nearest",
        rasterized=True,
    )  # fmt: skip
    figure.colorbar(shown, label="density, relative to its largest value", shrink=0.8)
    places = path.points[:, pair]
    axes.plot(*places.T, color=COLOURS[1], linewidth=2, path_effects=[_HALO])
    _mark(axes, places, chosen)
    axes.set_xlabel(f"coordinate {pair[0] + 1}")
    axes.set_ylabel(f"coordinate {pair[1] + 1}")
    axes.set_title(path.remark, fontsize=8, color=INK)
    return figure


def _mark(
    axes: Axes, places: Float64[np.ndarray, "points 2"], chosen: Int64[np.ndarray, " states"]
) -> None:
    """Number the points that volumes are made at."""
    axes.plot(
        *places[chosen].T, "o", color=COLOURS[1], markeredgecolor="white", markersize=6, zorder=3
    )
    for number, place in enumerate(places[chosen]):
        axes.annotate(
            str(number), place, xytext=(4, 4), textcoords="offset points", fontsize=8, color=INK,
            zorder=4, path_effects=[_HALO],
        )  # fmt: skip
