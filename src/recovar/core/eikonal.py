"""Travel times |∇T| F = 1 on regular grids, and the quickest paths, which follow them down."""

import itertools

import numpy as np
from jaxtyping import Float, Float64, Int64
from scipy.ndimage import map_coordinates

from recovar.core.fast_marching_numba import march
from recovar.errors import InputError

MOST_AXES = 5
_STEP, _SHORTEST_STEP = 1 / 4, 1 / 64
"""Cells that a path descends at once, and when it goes from grid point to grid point instead."""
_ROUNDABOUT = 4
"""How many times the length of all axes a path may go in small steps."""


def travel_time(
    speed: Float[np.ndarray, "..."],
    spacing: Float[np.ndarray, " axes"],
    start: Float[np.ndarray, " axes"],
    end: Float[np.ndarray, " axes"] | None = None,
) -> Float64[np.ndarray, "..."]:
    """Solve |∇T| F = 1 on a grid of 1 to 5 axes by fast marching, with T = 0 at one point.

    Differences are upwind, of second order where two earlier points lie in a row, and taken of
    T/|x − x₀|, which is smooth at the source; so at constant speed T is exact. The published solver
    differences T itself, and its source is rounded to a grid point.

    Args:
        speed: F at the grid points, above 0.
        spacing: Distance of grid points along each axis.
        start: Source, in grid points; between them where the numbers are not whole.
        end: Stop once the front has passed here; where it has not come near by then, the latest
            time that was found stands in.

    Raises:
        InputError: If the grid has more than 5 axes, a speed is not above 0, or the source lies
            outside.

    Source:
        Sethian (1999), Level Set Methods and Fast Marching Methods; Treister and Haber (2016),
        J. Comput. Phys. 324, 210, for the factor |x − x₀|.
    """
    axes, shape = speed.ndim, np.array(speed.shape)
    if not 1 <= axes <= MOST_AXES:
        raise InputError(f"Expected a grid of 1 to {MOST_AXES} axes, got {axes}.")
    if not (np.isfinite(speed).all() and (speed > 0).all()):
        raise InputError("Expected finite speeds above 0. Add a small constant to a density.")
    if not ((start >= 0) & (start <= shape - 1)).all():
        raise InputError(
            f"Expected a source within a grid of {tuple(speed.shape)} points, got {start.tolist()}."
        )
    slowness = 1 / speed.astype(np.float64)
    time = np.full(speed.shape, np.inf)
    low = np.maximum(np.floor(start).astype(np.int64) - 1, 0)
    high = np.minimum(low + 4, shape)
    around = np.ix_(*(np.arange(*ends) for ends in zip(low, high, strict=True)))
    squares = sum(
        ((index - place) * step) ** 2
        for index, place, step in zip(around, start, spacing, strict=True)
    )
    here = interpolate(slowness, start[None])[0]
    time[around] = np.sqrt(squares) * (slowness[around] + here) / 2
    march(
        time.reshape(-1),
        slowness.reshape(-1),
        shape.astype(np.int64),
        spacing.astype(np.float64),
        start.astype(np.float64),
        np.empty(0, np.int64) if end is None else _corners(end, shape),
    )
    return np.where(np.isfinite(time), time, time[np.isfinite(time)].max())


def trace_path(
    time: Float64[np.ndarray, "..."],
    spacing: Float[np.ndarray, " axes"],
    start: Float[np.ndarray, " axes"],
    end: Float[np.ndarray, " axes"],
) -> Float64[np.ndarray, "points axes"]:
    """Follow travel times down from `end` to their source, by midpoint steps of a quarter cell.

    A step that does not lead to earlier times is halved, and at last replaced by one to the
    earliest grid point around, as are all once there were very many, as where one spacing is a
    tiny part of another; so every path arrives, where the published one gives up in places
    and begins again with a larger floor of the speed.

    Args:
        time: What `travel_time` gives.
        spacing: As it was given there.
        start: The source, in grid points.
        end: Where the path ends.

    Returns:
        Points from source to end, in grid points; times strictly increase along them.
    """
    most = np.array(time.shape) - 1
    place, now = end.astype(np.float64), interpolate(time, end[None])[0]
    path = [place]
    enough = _ROUNDABOUT * sum(time.shape) / _STEP
    while np.linalg.norm(place - start) > 1:
        step = _STEP
        while step >= _SHORTEST_STEP and len(path) < enough:
            middle = np.clip(place + step / 2 * _descend(time, spacing, place), 0, most)
            following = np.clip(place + step * _descend(time, spacing, middle), 0, most)
            then = interpolate(time, following[None])[0]
            if then < now:
                break
            step /= 2
        else:
            following = _earliest_around(time, place)
            then = interpolate(time, following[None])[0]
            if not then < now:  # only at the source itself
                break
        place, now = following, then
        path.append(place)
    return np.array([*path, start.astype(np.float64)])[::-1]


def _corners(
    place: Float[np.ndarray, " axes"], shape: Int64[np.ndarray, " axes"]
) -> Int64[np.ndarray, " corners"]:
    """Number the grid points around a place."""
    low = np.floor(place).astype(np.int64)
    corners = low + np.array(list(itertools.product((0, 1), repeat=len(place))))
    within = np.minimum(corners, shape - 1)
    return np.unique(np.ravel_multi_index(tuple(within.T), tuple(shape)))


def interpolate(
    values: Float64[np.ndarray, "..."], places: Float[np.ndarray, "points axes"]
) -> Float64[np.ndarray, " points"]:
    """Interpolate linearly at places counted in grid points."""
    return map_coordinates(values, places.T, order=1, mode="nearest")


def _descend(
    time: Float64[np.ndarray, "..."],
    spacing: Float[np.ndarray, " axes"],
    place: Float64[np.ndarray, " axes"],
) -> Float64[np.ndarray, " axes"]:
    """Give the direction in which times fall fastest, in grid points; of length 1, or 0."""
    half = 0.5 * np.eye(len(place))
    ahead = np.clip(place + half, 0, np.array(time.shape) - 1)
    behind = np.clip(place - half, 0, np.array(time.shape) - 1)
    rise = np.subtract(*np.split(interpolate(time, np.concatenate([ahead, behind])), 2))
    slope = rise / np.diag(ahead - behind) / spacing**2
    length = np.linalg.norm(slope)
    return -slope / length if length > 0 else slope


def _earliest_around(
    time: Float64[np.ndarray, "..."], place: Float64[np.ndarray, " axes"]
) -> Float64[np.ndarray, " axes"]:
    """Give the earliest grid point among those at most two cells away."""
    low = np.maximum(np.floor(place).astype(np.int64) - 1, 0)
    box = time[tuple(slice(first, first + 4) for first in low)]
    return low + np.array(np.unravel_index(np.argmin(box), box.shape), np.float64)
