"""Soft windows on a lattice: what of a map lies in them, and maps put together from them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import ceil

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from recovar.core.grid import Grid, half_weights
from recovar.errors import InputError

_BATCH = 2**19
"""Voxels that are handled at once; more than a cache holds takes longer."""

_LEAST_COVERAGE = 1e-4
"""Voxels with a smaller sum of windows are in none."""


@dataclass(frozen=True)
class Windows:
    """Soft balls on a cubic lattice through the origin of the map; lengths in Å."""

    step: float
    """Distance of neighbours on the lattice; rounded to whole voxels."""
    radius: float
    """Up to here a window is 1."""
    edge: float
    """Width of the cosine by which it falls to 0."""

    def __post_init__(self) -> None:
        if min(self.step, self.radius, self.edge) <= 0:
            raise InputError(f"Expected windows of positive step, radius and edge, got {self}.")
        if self.reach < 0.9 * self.step:
            raise InputError(
                f"Expected windows that cover a map: radius and edge, {self.reach:g} Å in all, "
                f"must be at least 0.9 of the step, {self.step:g} Å."
            )

    @property
    def reach(self) -> float:
        """Distance beyond which a window is 0."""
        return self.radius + self.edge

    def sample(self, grid: Grid) -> Float[np.ndarray, "side side side"]:
        """Draw a window in the middle of the smallest cube of even side that holds it."""
        half = ceil(self.reach / grid.voxel_size)
        axis = (np.arange(-half, half) * grid.voxel_size) ** 2
        radii = np.sqrt(axis[:, None, None] + axis[:, None] + axis)
        beyond = np.clip((radii - self.radius) / self.edge, 0, 1)
        return (0.5 + 0.5 * np.cos(np.pi * beyond)).astype(np.float32)

    def centres(
        self, grid: Grid, mask: Float[np.ndarray, "z y x"] | None = None
    ) -> Int[np.ndarray, "windows 3"]:
        """List the voxels, z y x, in the middle of the windows that are wanted.

        Args:
            grid: Grid of the map.
            mask: Points of the lattice are kept whose own cell holds voxels above one half. None
                keeps those whose `radius` lies in the ball that is inscribed in the box.
        """
        step, half = max(1, round(self.step / grid.voxel_size)), grid.size // 2
        before, after = (half + step - 1 - step // 2) // step, (half - 1 + step // 2) // step
        axis = half + step * np.arange(-before, after + 1)
        if mask is None:
            square = ((axis - half) * grid.voxel_size) ** 2
            radii = np.sqrt(square[:, None, None] + square[:, None] + square)
            kept = radii <= half * grid.voxel_size - self.radius
        else:
            kept = mask > 0.5
            starts = np.maximum(axis - step // 2, 0)
            for dimension in range(3):
                kept = np.logical_or.reduceat(kept, starts, dimension)
        return axis.clip(0, grid.size - 1)[np.argwhere(kept)]


def cut_cubes(
    volume: Float[np.ndarray, "z y x"], centres: Int[np.ndarray, "windows 3"], side: int
) -> Iterator[Float[np.ndarray, "batch side side side"]]:
    """Cut cubes of even side around voxels out of a map, some at a time; zeros beyond its box."""
    padded = np.pad(volume.astype(np.float32, copy=False), side // 2)
    cubes = np.lib.stride_tricks.sliding_window_view(padded, (side,) * 3)
    step = max(1, _BATCH // side**3)
    for start in range(0, len(centres), step):
        yield cubes[tuple(centres[start : start + step].T)]


def average_windows(
    values: Iterable[Float[np.ndarray, "side side side"] | float],
    centres: Int[np.ndarray, "windows 3"],
    window: Float[np.ndarray, "side side side"],
    grid: Grid,
    empty: float = 0.0,
) -> Float[np.ndarray, "z y x"]:
    """Give every voxel the mean of the values that windows have there, weighted by the windows.

    Args:
        values: What every window says: a number, or one for each voxel of its cube.
        centres: Voxels in the middle of the windows.
        window: Their shape.
        grid: Grid of the map.
        empty: Value where there is no window.
    """
    side = len(window)
    sums, coverage = np.zeros((2, *(grid.size + side,) * 3), np.float32)
    for centre, value in zip(centres, values, strict=True):
        place = tuple(slice(start, start + side) for start in centre)
        sums[place] += window * np.float32(value)
        coverage[place] += window
    inside = (slice(side // 2, side // 2 + grid.size),) * 3
    result = np.full(grid.volume_shape, empty, np.float32)
    covered = coverage[inside] > _LEAST_COVERAGE
    return np.divide(sums[inside], coverage[inside], out=result, where=covered)


def independent_coefficients(window: Float[np.ndarray, "side side side"]) -> Float[np.ndarray, "n"]:
    """Count the independent numbers that each shell of the transform of windowed noise holds.

    White noise under a window w has coefficients k, k′ whose covariance is the transform K of w²
    at k − k′. So the correlation of two such maps over n coefficients has the variance
    Σ |K(k − k′)|² / (n K(0))², and that of independent pairs is one over their number.

    Example:
        >>> independent_coefficients(np.ones((8, 8, 8))).round(9).tolist()  # all of a shell
        [1.0, 18.0, 62.0, 98.0]
    """
    side = len(window)
    spread = np.abs(np.fft.fftn(window.astype(np.float64) ** 2)) ** 2
    pairing = np.fft.rfftn(spread / spread[0, 0, 0]).real * half_weights(side) / side**3
    axis = np.fft.fftfreq(side, 1 / side) ** 2
    shells = np.rint(np.sqrt(axis[:, None, None] + axis[:, None] + axis))
    counts = np.empty(side // 2)
    for shell in range(side // 2):
        members = shells == shell
        pairs = np.sum(pairing * np.abs(np.fft.rfftn(members)) ** 2)
        counts[shell] = np.sum(members) ** 2 / pairs
    return counts


def noise_limits(
    window: Float[np.ndarray, "side side side"], probability: float
) -> Float[np.ndarray, "n"]:
    """Give the correlations that independent noise in a window exceeds with some probability.

    The correlation r of n independent Gaussian pairs makes r √((n − 1) / (1 − r²)) a Student's t
    of n − 1 degrees of freedom. A single pair tells nothing: its limit is next to 1.
    """
    degrees = np.maximum(independent_coefficients(window) - 1, 0.1)
    t = stats.t.isf(probability, degrees)
    return t / np.sqrt(t**2 + degrees)
