"""The section on the density of molecules over latent coordinates."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from recovar.density.record import Density, read_density
from recovar.workflows.reporting.charts import Axis, Series, draw_chart, draw_plane, spanning_axis
from recovar.workflows.reporting.contents import Contents
from recovar.workflows.reporting.markup import Markup, element, figure
from recovar.workflows.reporting.page import Section
from recovar.workflows.reporting.pictures import encode_picture, heat_shade

_MOST_AXES = 4


def show_density(contents: Contents) -> Section | None:
    """Write the section, if densities were estimated."""
    files = sorted(contents.path.glob("output/density_*/density.npz"))
    if not files:
        return None
    return Section(
        "density",
        "Density",
        "How many molecules have which shape, with the errors of the coordinates taken out as far "
        "as images allow. What bands do not tell apart, images do not tell apart; hills that are "
        "narrower than the errors of coordinates cannot be seen.",
        [part for file in files for part in _show(file)],
    )


def _show(file: Path) -> Iterator[Markup]:
    density = read_density(file)
    yield element("h3", f"Over {density.dimensions} coordinates")
    if density.dimensions > 1:
        caption = "Over the first two coordinates, summed over the others."
        yield figure(_draw_plane(density), caption)
    for axis in range(min(density.dimensions, _MOST_AXES)):
        yield figure(_draw_line(density, axis))


def _draw_line(density: Density, axis: int) -> Markup:
    line = density if density.dimensions == 1 else density.marginal((axis,))
    places, values = line.axes[0], line.values.astype(np.float64)
    series = [Series("density", values)]
    if line.bands is not None:
        lower, upper = line.bands.astype(np.float64)
        series.insert(0, Series("95 % band", lower, "band", upper=upper))
    axes = (
        Axis(f"coordinate {axis + 1}", (float(places[0]), float(places[-1]))),
        spanning_axis("density", *(one.values for one in series), *_uppers(series), np.zeros(1)),
    )
    return draw_chart(f"Density along coordinate {axis + 1}", places, series, axes)


def _uppers(series: list[Series]) -> list[Float64[np.ndarray, " points"]]:
    return [one.upper for one in series if one.upper is not None]


def _draw_plane(density: Density) -> Markup:
    plane = density if density.dimensions == 2 else density.marginal((0, 1))
    picture = np.maximum(plane.values.astype(np.float64).T, 0)
    axes = tuple(
        Axis(f"coordinate {k}", (float(places[0]), float(places[-1])))
        for k, places in enumerate(plane.axes, 1)
    )
    address = encode_picture(heat_shade([picture]).paint(picture))
    return draw_plane("Density over the first two coordinates", address, (axes[0], axes[1]))
