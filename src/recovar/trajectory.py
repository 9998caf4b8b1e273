"""Paths between two latent points that keep to where molecules are.

A path costs ∫ ds/F, where the speed F is the density of molecules relative to its largest value,
plus a floor that lets a path cross what is empty. On a grid of up to five coordinates the cheapest
path follows from travel times, |∇T| F = 1; in any number of coordinates it is sought among images.
"""

import logging
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Float64, Int64
from scipy.ndimage import gaussian_filter1d
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra
from sklearn.neighbors import NearestNeighbors, kneighbors_graph

from recovar.core.eikonal import MOST_AXES, trace_path, travel_time
from recovar.density.kernel_density import estimate_kernel_density
from recovar.density.record import Density
from recovar.errors import InputError

logger = logging.getLogger(__name__)

POINTS = 200
"""Points of a path, equally far apart."""
DENSITY_COORDINATES = 4
"""First coordinates that a density is estimated over."""
_FLOOR = 1e-5
"""Speed where there are no molecules, relative to the largest."""
_NODES = 20_000
"""Images that a graph is made of at most."""
_NEIGHBOURS = 12
"""Images that an image of a graph is joined to."""
_COUNTED = 50
"""Nearest images that tell the density at an image."""
_CERTAIN = 0.1
"""Share of the images that is certain enough to count in full."""
_AVERAGED = 100
"""Nearest images that coordinates without a density are averaged over."""
_SMOOTHING = 0.03
"""Standard deviation that what comes from single images is smoothed by, as a share of the path."""
_ENDS = (0.03, 99.97)
"""Percentiles between which the path along a single coordinate goes."""


@dataclass(frozen=True)
class LatentPath:
    """A path through latent space, by points equally far apart along it."""

    points: Float64[np.ndarray, "points zdim"]
    """From start to end."""
    arc_length: Float64[np.ndarray, " points"]
    """From the start, in the units of the coordinates."""
    density: Float64[np.ndarray, " points"]
    """Of molecules, at the points."""
    landscape: Density
    """Where `density` is from; over the first coordinates, all or some."""
    cost: float
    """∫ ds/F; the length, where the density is the largest one everywhere."""
    method: Literal["grid", "graph", "line"]
    """How the path was found."""
    kind: Literal["density", "visual"]
    """Whether it is the cheapest under `landscape`, or only shows what lies between its ends."""

    @property
    def remark(self) -> str:
        """Say what the path rests on."""
        if self.kind == "visual":
            return "For looking only: no density over all coordinates stands behind this path."
        axes, zdim = self.landscape.dimensions, self.points.shape[1]
        over = f"the first {axes} of {zdim} coordinates" if axes < zdim else "all coordinates"
        return f"The cheapest path under the density over {over}."

    def choose(self, count: int) -> Int64[np.ndarray, " count"]:
        """Choose points equally far apart, both ends included."""
        return np.linspace(0, len(self.points) - 1, count).round().astype(np.int64)


def find_path(
    coordinates: Float[np.ndarray, "images zdim"],
    start: Float[np.ndarray, " zdim"],
    end: Float[np.ndarray, " zdim"],
    density: Density | None = None,
    method: Literal["auto", "grid", "graph", "line"] = "auto",
    covariance: Float[np.ndarray, "images zdim zdim"] | None = None,
) -> LatentPath:
    """Find a path between two points.

    With "grid" it is the cheapest one under the density. Coordinates that the density does not
    have are averages over images near the path, shifted so that the ends are met. With "graph" it
    is the cheapest way from image to image, whose length counts in all coordinates, smoothed.
    "line" is straight. "auto" is the graph where there are more than 4 coordinates and no density
    is given, and the grid otherwise: with 10 and 20 coordinates, paths of the graph lay nearer to
    true ones than those of the grid (`benchmarks/results/trajectory.md`). The published extension
    of the grid, by one coordinate at a time, evaluates the kernels of all images at 40,000 points
    for each further coordinate; it was not tried.

    Args:
        coordinates: Of the images.
        start: Where to begin.
        end: Where to arrive.
        density: Over the first coordinates, all or some, in place of an estimate from the images.
        method: How to find the path.
        covariance: Of the errors of coordinates; images that are less certain count less in the
            graph.

    Raises:
        InputError: If there is no path, or numbers of coordinates do not fit together.
    """
    start, end, zdim = start.astype(np.float64), end.astype(np.float64), coordinates.shape[1]
    _check_ends(coordinates, start, end)
    given = density is not None
    if density is None:
        density = estimate_kernel_density(coordinates[:, :DENSITY_COORDINATES])
    if density.dimensions > min(zdim, MOST_AXES):
        raise InputError(
            f"Expected a density over at most {min(zdim, MOST_AXES)} coordinates for a path in "
            f"{zdim}, got one over {density.dimensions}. Give another one, or none."
        )
    if method == "auto":
        method = "grid" if given or zdim <= DENSITY_COORDINATES else "graph"
    if method == "line":
        points = np.stack([start, end])
    elif method == "grid":
        points = _follow_grid(coordinates, np.stack([start, end]), density)
    else:
        nodes = np.concatenate([[start], _spread(coordinates), [end]])
        here = density.at(nodes) if given else _count_around(nodes, coordinates, covariance)
        points = _smooth(resample(_cross(nodes, _relative(here)), POINTS))
    points = resample(points, POINTS)
    values = density.at(points)
    covers = method == "grid" or (method == "graph" and given and density.dimensions == zdim)
    return LatentPath(
        points=points,
        arc_length=_arc_length(points),
        density=values,
        landscape=density,
        cost=integrate_cost(points, values / density.values.max() + _FLOOR),
        method=method,
        kind="density" if covers else "visual",
    )


def outer_points(
    coordinates: Float[np.ndarray, "images 1"],
) -> tuple[Float64[np.ndarray, " 1"], Float64[np.ndarray, " 1"]]:
    """Give the ends of a single coordinate, without the outermost few images."""
    low, high = np.percentile(coordinates.astype(np.float64), _ENDS, axis=0)
    return low, high


def integrate_cost(
    points: Float64[np.ndarray, "points zdim"], speed: Float64[np.ndarray, " points"]
) -> float:
    """Integrate ∫ ds/F along a path."""
    return float(np.diff(_arc_length(points)) @ (1 / speed[1:] + 1 / speed[:-1]) / 2)


def resample(
    points: Float64[np.ndarray, "points zdim"], count: int
) -> Float64[np.ndarray, "count zdim"]:
    """Put points on a broken line, equally far apart along it, both ends included.

    Example:
        >>> resample(np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 3.0]]), 3).tolist()
        [[0.0, 0.0], [1.0, 1.0], [1.0, 3.0]]
    """
    length = _arc_length(points)
    wanted = np.linspace(0, length[-1], count)
    return np.stack([np.interp(wanted, length, column) for column in points.T], axis=1)


def _arc_length(points: Float64[np.ndarray, "points zdim"]) -> Float64[np.ndarray, " points"]:
    return np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])


def _smooth(points: Float64[np.ndarray, "points zdim"]) -> Float64[np.ndarray, "points zdim"]:
    """Smooth what lies between the ends, which stay where they are."""
    width = len(points) - 1
    wide = np.pad(points, ((width, width), (0, 0)), "reflect", reflect_type="odd")
    return gaussian_filter1d(wide, _SMOOTHING * len(points), axis=0)[width:-width]


def _check_ends(
    coordinates: Float[np.ndarray, "images zdim"],
    start: Float64[np.ndarray, " zdim"],
    end: Float64[np.ndarray, " zdim"],
) -> None:
    low, high = coordinates.min(axis=0), coordinates.max(axis=0)
    for name, point in (("start", start), ("end", end)):
        outside = np.flatnonzero(~((point >= low) & (point <= high)))
        if outside.size:
            axis = outside[0]
            raise InputError(
                f"The {name} of the path lies where there are no images: its coordinate {axis + 1} "
                f"is {point[axis]:g}, those of images are {low[axis]:g} to {high[axis]:g}. Choose "
                "points among the images, such as centres of clusters."
            )
    if (start == end).all():
        raise InputError("Start and end of the path are the same point. Give two different ones.")


def _follow_grid(
    coordinates: Float[np.ndarray, "images zdim"],
    ends: Float64[np.ndarray, "2 zdim"],
    density: Density,
) -> Float64[np.ndarray, "points zdim"]:
    """Follow travel times; ends beyond the grid are joined to it straight."""
    axes = density.dimensions
    origin = np.array([axis[0] for axis in density.axes])
    spacing = np.array([axis[1] - axis[0] for axis in density.axes])
    start, end = np.clip((ends[:, :axes] - origin) / spacing, 0, np.array(density.values.shape) - 1)
    speed = density.values / density.values.max() + _FLOOR
    time = travel_time(speed, spacing, start, end)
    cells = trace_path(time, spacing, start, end)
    path = np.concatenate([ends[:1, :axes], origin + spacing * cells, ends[1:, :axes]])
    if axes == coordinates.shape[1]:
        return path
    path = resample(path, POINTS)
    others = _average_around(path, coordinates)
    share = np.linspace(0, 1, POINTS)[:, None]
    others += (1 - share) * (ends[0, axes:] - others[0]) + share * (ends[1, axes:] - others[-1])
    return np.concatenate([path, others], axis=1)


def _average_around(
    path: Float64[np.ndarray, "points axes"], coordinates: Float[np.ndarray, "images zdim"]
) -> Float64[np.ndarray, "points others"]:
    """Average the further coordinates of the images that are near to a path in the first ones."""
    axes = path.shape[1]
    neighbours = NearestNeighbors(n_neighbors=min(_AVERAGED, len(coordinates)))
    distance, image = neighbours.fit(coordinates[:, :axes]).kneighbors(path)
    weight = np.exp(-2 * (distance / np.maximum(distance[:, -1:], np.finfo(float).tiny)) ** 2)
    others = coordinates[:, axes:].astype(np.float64)[image]
    return _smooth(np.einsum("pn,pnk->pk", weight, others) / weight.sum(axis=1)[:, None])


def _spread(coordinates: Float[np.ndarray, "images zdim"]) -> Float64[np.ndarray, "nodes zdim"]:
    """Take images, of the whole table, that a graph can hold."""
    rows = np.unique(np.linspace(0, len(coordinates) - 1, _NODES).astype(np.int64))
    return coordinates[rows].astype(np.float64)


def _count_around(
    nodes: Float64[np.ndarray, "nodes zdim"],
    coordinates: Float[np.ndarray, "images zdim"],
    covariance: Float[np.ndarray, "images zdim zdim"] | None,
) -> Float64[np.ndarray, " nodes"]:
    """Estimate the density over the first coordinates by how near the next images are.

    Posterior means of images that tell little gather at the origin, whatever their molecules; so
    images count by the root of the determinant of their precision, the most certain ones alike.
    """
    axes = min(DENSITY_COORDINATES, nodes.shape[1])
    weight = np.ones(len(coordinates))
    if covariance is not None:
        spread = np.linalg.slogdet(covariance[:, :axes, :axes].astype(np.float64)).logabsdet
        weight = np.exp(np.minimum(0, (np.quantile(spread, _CERTAIN) - spread) / 2))
    neighbours = NearestNeighbors(n_neighbors=min(_COUNTED, len(coordinates)))
    distance, image = neighbours.fit(coordinates[:, :axes]).kneighbors(nodes[:, :axes])
    return weight[image].sum(axis=1) / np.maximum(distance[:, -1], np.finfo(float).eps) ** axes


def _relative(density: Float64[np.ndarray, " nodes"]) -> Float64[np.ndarray, " nodes"]:
    """Make speeds; the largest 1 % count alike, since copies of an image are infinitely near."""
    return np.minimum(density / max(np.quantile(density, 0.99), np.finfo(float).tiny), 1) + _FLOOR


def _cross(
    nodes: Float64[np.ndarray, "nodes zdim"], speed: Float64[np.ndarray, " nodes"]
) -> Float64[np.ndarray, "points zdim"]:
    """Find the cheapest way from the first node to the last one, between near neighbours."""
    last, neighbours = len(nodes) - 1, min(_NEIGHBOURS, len(nodes) - 1)
    while True:
        graph = csr_array(kneighbors_graph(nodes, neighbours, mode="distance"))
        row = np.repeat(np.arange(len(nodes)), neighbours)
        cost = graph.data * (1 / speed[row] + 1 / speed[graph.indices]) / 2
        graph.data = np.maximum(cost, np.finfo(float).tiny)
        found = dijkstra(graph, directed=False, indices=0, return_predecessors=True)
        if np.isfinite(found[0][last]) or neighbours == last:
            break
        neighbours = min(2 * neighbours, last)
    if neighbours > _NEIGHBOURS:
        logger.warning(
            "The ends of the path lie in groups of images that stand apart: only when every image "
            "is joined to its %d nearest instead of %d is there a way. No images show what lies "
            "between the groups.",
            neighbours,
            _NEIGHBOURS,
        )
    way = [last]
    while way[-1] != 0:
        way.append(int(found[1][way[-1]]))
    return nodes[way[::-1]]
