"""The section on the density of molecules over latent coordinates."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from recovar.density.record import Density, read_density
from recovar.workflows.reporting.charts import (
    Axis,
    Mark,
    Series,
    draw_chart,
    draw_plane,
    number_text,
    spanning_axis,
)
from recovar.workflows.reporting.contents import Contents
from recovar.workflows.reporting.markup import Markup, element, figure, table
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


@dataclass(frozen=True)
class _State:
    """A stable state, as `recovar density` tells of it."""

    position: tuple[float, ...]
    population: float
    interval: Sequence[float] | None
    """Both ends of the 95 % interval of the population."""


def _show(file: Path) -> Iterator[Markup]:
    density = read_density(file)
    yield element("h3", f"{file.parent.name}: over {density.dimensions} coordinates")
    states: list[_State] = []
    told = file.with_name("populations.json")
    if told.exists():
        content = json.loads(told.read_text(encoding="utf-8"))
        states = [
            _State(tuple(each["position"]), each["population"], each["interval_95"])
            for each in content["states"]
        ]
        if not content.get("moves", True):
            yield element(
                "p", "No movement is seen: coordinates vary by no more than their errors."
            )
        yield from _list_states(states)
    if density.dimensions > 1:
        caption = "Over the first two coordinates, summed over the others."
        yield figure(_draw_plane(density, states), caption)
    for axis in range(min(density.dimensions, _MOST_AXES)):
        yield figure(_draw_line(density, states, axis))


def _list_states(states: list[_State]) -> Iterator[Markup]:
    if len(states) == 1:
        yield element("p", "One stable state: no second peak is beyond doubt.")
    rows = [
        (
            str(number),
            f"{100 * state.population:.1f}",
            "" if state.interval is None else " … ".join(f"{100 * p:.1f}" for p in state.interval),
            ", ".join(number_text(place) for place in state.position),
        )
        for number, state in enumerate(states)
    ]
    if len(rows) > 1:
        head = ("stable state", "% of molecules", "95 % interval", "coordinates")
        yield table(head, rows, numbers=(0, 1, 2))


def _draw_line(density: Density, states: list[_State], axis: int) -> Markup:
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
    marks = [Mark(f"{number}", x=state.position[axis]) for number, state in enumerate(states)]
    return draw_chart(f"Density along coordinate {axis + 1}", places, series, axes, marks=marks)


def _uppers(series: list[Series]) -> list[Float64[np.ndarray, " points"]]:
    return [one.upper for one in series if one.upper is not None]


def _draw_plane(density: Density, states: list[_State]) -> Markup:
    plane = density if density.dimensions == 2 else density.marginal((0, 1))
    picture = np.maximum(plane.values.astype(np.float64).T, 0)
    axes = tuple(
        Axis(f"coordinate {k}", (float(places[0]), float(places[-1])))
        for k, places in enumerate(plane.axes, 1)
    )
    address = encode_picture(heat_shade([picture]).paint(picture))
    points = [
        (state.position[0], state.position[1], f"{number}") for number, state in enumerate(states)
    ]
    title = "Density over the first two coordinates"
    return draw_plane(title, address, (axes[0], axes[1]), points)
