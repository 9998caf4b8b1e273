"""Straight rays through a volume: where they first meet a contour, and values at any points.

Points are in voxels, z y x, and count from the centre of the first voxel; values between voxels
are trilinear.
"""

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float

BLOCK = 4
"""Side in voxels of the blocks that rays cross at once where nothing reaches the contour."""
_STEP = 1.0
"""Voxels between two looks at the volume."""
_HALVINGS = 7
"""Of the last step, to find the crossing."""


def block_maxima(
    field: Float[np.ndarray, "z y x"],
) -> Float[np.ndarray, "blocks_z blocks_y blocks_x"]:
    """Find the largest value that interpolation can reach in every block."""
    padded = np.pad(field, [(0, -(side - 1) % BLOCK) for side in field.shape], "edge")
    for axis, side in enumerate(padded.shape):
        starts = BLOCK * np.arange((side - 1) // BLOCK)
        layers = [np.take(padded, starts + offset, axis) for offset in range(BLOCK + 1)]
        padded = np.max(layers, axis=0)
    return padded


@numba.njit(inline="always", cache=True, error_model="numpy")
@no_type_check
def _value(field, z, y, x):
    """Interpolate at a point of the volume."""
    i = min(max(int(z), 0), field.shape[0] - 2)
    j = min(max(int(y), 0), field.shape[1] - 2)
    k = min(max(int(x), 0), field.shape[2] - 2)
    a, b, c = z - np.float32(i), y - np.float32(j), x - np.float32(k)
    one = np.float32(1)
    near = (field[i, j, k] * (one - c) + field[i, j, k + 1] * c) * (one - b) + (
        field[i, j + 1, k] * (one - c) + field[i, j + 1, k + 1] * c
    ) * b
    far = (field[i + 1, j, k] * (one - c) + field[i + 1, j, k + 1] * c) * (one - b) + (
        field[i + 1, j + 1, k] * (one - c) + field[i + 1, j + 1, k + 1] * c
    ) * b
    return near * (one - a) + far * a


@numba.njit(parallel=True, cache=True, error_model="numpy")
@no_type_check
def interpolate(field, points):
    """Interpolate at points, (points, 3); outside, the value of the nearest inside is given."""
    values = np.empty(len(points), np.float32)
    for n in numba.prange(len(points)):
        z = min(max(points[n, 0], np.float32(0)), np.float32(field.shape[0] - 1))
        y = min(max(points[n, 1], np.float32(0)), np.float32(field.shape[1] - 1))
        x = min(max(points[n, 2], np.float32(0)), np.float32(field.shape[2] - 1))
        values[n] = _value(field, z, y, x)
    return values


@numba.njit(parallel=True, cache=True, error_model="numpy")
@no_type_check
def normals(field, points):
    """Give the unit vectors along which the field falls fastest, z y x; 0 where it is flat."""
    found = np.zeros((len(points), 3), np.float32)
    for n in numba.prange(len(points)):
        z = min(max(points[n, 0], np.float32(1)), np.float32(field.shape[0] - 2))
        y = min(max(points[n, 1], np.float32(1)), np.float32(field.shape[1] - 2))
        x = min(max(points[n, 2], np.float32(1)), np.float32(field.shape[2] - 2))
        one = np.float32(1)
        a = _value(field, z - one, y, x) - _value(field, z + one, y, x)
        b = _value(field, z, y - one, x) - _value(field, z, y + one, x)
        c = _value(field, z, y, x - one) - _value(field, z, y, x + one)
        length = np.sqrt(a * a + b * b + c * c)
        if length > 0:
            found[n, 0] = a / length
            found[n, 1] = b / length
            found[n, 2] = c / length
    return found


@numba.njit(inline="always", cache=True, error_model="numpy")
@no_type_check
def _pass(start, direction, sides, t):
    """Give the distance at which a ray that is at `t` leaves the box from 0 to `sides`."""
    leave = np.inf
    for axis in range(3):
        if direction[axis] > 0:
            leave = min(leave, (sides[axis] - start[axis]) / direction[axis])
        elif direction[axis] < 0:
            leave = min(leave, -start[axis] / direction[axis])
    return max(leave, t)


@numba.njit(inline="always", cache=True, error_model="numpy")
@no_type_check
def _enter(start, direction, sides):
    """Give the distance at which a ray enters the box from 0 to `sides`; ∞ if it misses it."""
    first, last = 0.0, np.inf
    for axis in range(3):
        if direction[axis] == 0:
            if start[axis] < 0 or start[axis] > sides[axis]:
                return np.inf
        else:
            one = -start[axis] / direction[axis]
            other = (sides[axis] - start[axis]) / direction[axis]
            first, last = max(first, min(one, other)), min(last, max(one, other))
    return first if first < last else np.inf


@numba.njit(inline="always", cache=True, error_model="numpy")
@no_type_check
def _cast(field, maxima, level, start, direction, sides):
    """Give the distance along one ray at which the contour is met; ∞ if it is not."""
    t = _enter(start, direction, sides)
    if t == np.inf:
        return t
    end = _pass(start, direction, sides, t)
    while t < end:
        z = np.float32(start[0] + t * direction[0])
        y = np.float32(start[1] + t * direction[1])
        x = np.float32(start[2] + t * direction[2])
        i = min(max(int(z), 0) // BLOCK, maxima.shape[0] - 1)
        j = min(max(int(y), 0) // BLOCK, maxima.shape[1] - 1)
        k = min(max(int(x), 0) // BLOCK, maxima.shape[2] - 1)
        if maxima[i, j, k] < level:
            corner = (start[0] - BLOCK * i, start[1] - BLOCK * j, start[2] - BLOCK * k)
            t = _pass(corner, direction, (BLOCK, BLOCK, BLOCK), t) + 1e-3
        elif _value(field, z, y, x) >= level:
            before = max(t - _STEP, 0.0)
            for _ in range(_HALVINGS):
                middle = 0.5 * (before + t)
                if (
                    _value(
                        field,
                        np.float32(start[0] + middle * direction[0]),
                        np.float32(start[1] + middle * direction[1]),
                        np.float32(start[2] + middle * direction[2]),
                    )
                    >= level
                ):
                    t = middle
                else:
                    before = middle
            return t
        else:
            t += _STEP
    return np.inf


@numba.njit(parallel=True, cache=True, error_model="numpy")
@no_type_check
def first_crossings(field, maxima, level, corner, right, down, direction, size):
    """Give for every pixel of a square picture the distance at which its ray meets the contour.

    Args:
        field: Volume; below `level` on its faces.
        maxima: From `block_maxima`.
        level: Value of the contour.
        corner: Where the ray of the first pixel starts, before the volume.
        right: From a pixel to the next of its row.
        down: From a pixel to the one below it.
        direction: Of the rays, of length 1.
        size: Pixels along a side.

    Returns:
        Distances in voxels, (rows, columns); ∞ where a ray meets nothing.
    """
    distances = np.empty((size, size), np.float32)
    sides = (field.shape[0] - 1.0, field.shape[1] - 1.0, field.shape[2] - 1.0)
    for row in numba.prange(size):
        for column in range(size):
            start = (
                corner[0] + column * right[0] + row * down[0],
                corner[1] + column * right[1] + row * down[1],
                corner[2] + column * right[2] + row * down[2],
            )
            distances[row, column] = _cast(field, maxima, level, start, direction, sides)
    return distances
