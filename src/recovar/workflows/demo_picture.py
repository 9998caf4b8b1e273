"""The picture of `recovar demo`: what was seen, what was found, and what is true."""

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recovar.metrics import predict_by_neighbours
from recovar.simulator import Simulation
from recovar.workflows.demo_scores import Molecules, Recovered

_INK, _MUTED, _ABSENT, _PRESENT = "#1f2933", "#7b8794", "#dd6b20", "#2b6cb0"
_BENDS, _SIGNED = "viridis", "RdBu_r"
_ROWS, _COLUMNS = 3, 2
"""Of images that are shown."""
_COMPONENTS = 4
_NEIGHBOURS = 20
_LEAST_DENSITY = 0.02
"""Share of the largest density below which maps are cut off at their sides."""
_TICKS = (-1, -0.5, 0, 0.5, 1)
"""Of the bend."""
_NAMES = ("domain absent", "domain present")


def draw_demo(found: Recovered, simulation: Simulation, molecules: Molecules) -> Figure:
    """Draw some images, all latent coordinates, and maps beside the true ones."""
    figure = Figure((12.0, 8.0), layout="constrained")
    rows = figure.add_gridspec(2, 1, height_ratios=(1.0, 0.95))
    above, below = (figure.add_subfigure(row) for row in rows)
    images, first, second, bends = above.subplots(1, 4, width_ratios=(0.66, 1, 1, 1)).tolist()
    _draw_images(images, simulation)
    _draw_latent([first, second], found, simulation, molecules)
    _draw_bends(bends, found, simulation)
    count = 1 + min(_COMPONENTS, len(found.components))
    _draw_maps(below.subplots(2, count), found, molecules)
    return figure


def _draw_images(axes: Axes, simulation: Simulation) -> None:
    images = simulation.images(np.arange(_ROWS * _COLUMNS))
    low, high = np.percentile(images, (0.5, 99.5))
    framed = np.pad(images, ((0, 0), (0, 2), (0, 2)), constant_values=np.nan)
    sheet = framed.reshape(_ROWS, _COLUMNS, *framed.shape[1:]).swapaxes(1, 2)
    height = _ROWS * framed.shape[1]
    axes.imshow(sheet.reshape(height, -1), cmap="gray", vmin=low, vmax=high)
    _make_bare(axes)
    axes.set_title(f"{len(images)} of {len(simulation):,} images", fontsize=10)


def _draw_latent(
    panels: list[Axes], found: Recovered, simulation: Simulation, molecules: Molecules
) -> None:
    """Draw coordinates in standard deviations, with the paths of the true volumes."""
    scale = np.sqrt(np.maximum(found.eigenvalues, np.finfo(float).tiny))
    coordinates = found.coordinates / scale
    places = _coordinates_of(molecules.volumes, found) / scale
    present = molecules.states[:, 1] > 0.5
    last = coordinates.shape[1] - 1
    for axes, (x, y) in zip(panels, ((0, 1), (0, 2)), strict=True):
        x, y = min(x, last), min(y, last)
        dots = axes.scatter(
            coordinates[:, x], coordinates[:, y], c=simulation.truth.states[:, 0], cmap=_BENDS,
            vmin=-1, vmax=1, s=4, linewidths=0, alpha=0.6, rasterized=True,
        )  # fmt: skip
        for there, style in ((False, (0, (2, 1))), (True, "-")):
            path = places[present == there]
            axes.plot(
                path[:, x], path[:, y], color=_INK, linestyle=style, linewidth=1.6,
                label=_NAMES[there],
            )  # fmt: skip
        axes.set_xlabel(f"latent coordinate {x + 1} (standard deviations)", fontsize=8)
        axes.set_ylabel(f"latent coordinate {y + 1}", fontsize=8)
        axes.set_xlim(-2.6, 2.6)
        axes.set_ylim(-3.1, 3.1)
        _make_plain(axes)
    panels[0].set_title("images, placed by what they show", fontsize=10)
    panels[1].set_title("lines: where the true volumes lie", fontsize=10)
    panels[1].legend(frameon=False, fontsize=8, loc="lower center", ncols=2)
    bar = panels[0].figure.colorbar(
        dots, ax=panels, location="bottom", shrink=0.5, aspect=40, ticks=_TICKS
    )
    bar.set_label("true bend of the arm", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    if bar.solids is not None:
        bar.solids.set_alpha(1)


def _coordinates_of(
    volumes: Float[np.ndarray, "states z y x"], found: Recovered
) -> Float[np.ndarray, "states zdim"]:
    """Find where volumes lie along the components that were found."""
    components = found.components.reshape(len(found.components), -1).T
    differences = (volumes - found.mean).reshape(len(volumes), -1).T
    return np.linalg.lstsq(components, differences, rcond=None)[0].T


def _draw_bends(axes: Axes, found: Recovered, simulation: Simulation) -> None:
    bends, presence = simulation.truth.states.T
    told = predict_by_neighbours(found.coordinates, bends, _NEIGHBOURS)
    axes.plot([-1, 1], [-1, 1], color=_MUTED, linewidth=1)
    for there, colour in ((False, _ABSENT), (True, _PRESENT)):
        chosen = (presence > 0.5) == there
        axes.plot(
            bends[chosen], told[chosen], "o", color=colour, markersize=2, markeredgewidth=0,
            alpha=0.6, label=_NAMES[there], rasterized=True,
        )  # fmt: skip
    axes.legend(frameon=False, fontsize=8, markerscale=3)
    axes.set_xlabel("true bend of the arm", fontsize=8)
    axes.set_ylabel(f"mean of {_NEIGHBOURS} neighbours in latent space", fontsize=8)
    axes.set_title("the bend, told by neighbours", fontsize=10)
    axes.set_xticks(_TICKS)
    axes.set_yticks(_TICKS)
    _make_plain(axes)


def _draw_maps(panels: np.ndarray, found: Recovered, molecules: Molecules) -> None:
    """Draw slices across the hinge's axis: the true ones above those that were found.

    Components are shown as one standard deviation of the molecules along them, on one scale for
    each pair; the sign of a component means nothing, so the true one's is that of the other.
    """
    truth, count = molecules.population, panels.shape[1] - 1
    true = _deviations(truth.components, truth.variances, count)
    own = _deviations(found.components, found.eigenvalues, count)
    true *= np.sign((true * own).sum((1, 2, 3), keepdims=True))
    seen = _crop(truth.mean)
    levels = [int(np.argmax((part**2).sum((1, 2)))) for part in (truth.mean, *true)]
    for column, (above, below) in enumerate(panels.T):
        pair = (truth.mean, found.mean) if column == 0 else (true[column - 1], own[column - 1])
        limit = 0.7 * float(np.abs(pair[0]).max())
        for axes, volume in zip((above, below), pair, strict=True):
            axes.imshow(
                volume[levels[column]][seen], cmap=_SIGNED if column else "gray_r",
                origin="lower", vmin=-limit if column else 0, vmax=limit,
                interpolation="bicubic",
            )  # fmt: skip
            _make_bare(axes)
        above.set_title(f"component {column}" if column else "mean", fontsize=10)
    panels[0, 0].set_ylabel("true", fontsize=11)
    panels[1, 0].set_ylabel("recovered", fontsize=11)


def _deviations(
    volumes: Float[np.ndarray, "pcs z y x"], variances: Float[np.ndarray, " pcs"], count: int
) -> Float[np.ndarray, "count z y x"]:
    """Scale components to one standard deviation of the molecules along them."""
    lengths = np.sqrt(np.maximum(variances[:count], 0))
    return volumes[:count].astype(np.float64) * lengths[:, None, None, None]


def _crop(volume: Float[np.ndarray, "z y x"]) -> tuple[slice, slice]:
    """Find the rows and columns of slices across z where there is something."""
    shadow = np.abs(volume).max(0)
    inside = np.argwhere(shadow > _LEAST_DENSITY * shadow.max())
    (top, left), (bottom, right) = inside.min(0), inside.max(0) + 1
    return slice(int(top), int(bottom)), slice(int(left), int(right))


def _make_plain(axes: Axes) -> None:
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def _make_bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
