"""How evenly directions of view fill the Fourier space of a molecule."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

_ROWS = 48
"""Bands of equal area of the sphere of views; each has twice as many cells."""
_DIRECTIONS = 600
"""Of Fourier space, on a half sphere."""
_HALF_WIDTH = 0.1
"""Sine of the angle from a central slice within which it samples a direction."""
_HARDLY = 0.1
"""Of the mean sampling, below which a direction counts as hardly sampled."""
LEAST_IMAGES = 300
"""With fewer, chance decides."""


@dataclass(frozen=True)
class Coverage:
    """How images sample the directions of Fourier space."""

    efficiency: float
    """Harmonic mean of the sampling over its mean: the share of the images that would do, for the
    same average signal-to-noise ratio, if views were even. 1 at best, near 0 where directions are
    missing."""
    hardly_sampled: float
    """Share of directions that get less than a tenth of the mean."""


def measure_coverage(rotations: Float[np.ndarray, "images 3 3"]) -> Coverage:
    """Count, for each direction of Fourier space, the central slices that run through it.

    Source: the sampling compensation factor of Baldwin & Lyumkis, Prog. Biophys. Mol. Biol. 150
    (2020), whose harmonic mean this is; directions that no slice meets count as a thousandth of
    the mean instead of apart.

    Example:
        >>> from recovar.core.poses import random_rotations
        >>> even = random_rotations(5000, np.random.default_rng(0))
        >>> round(measure_coverage(even).efficiency, 1)
        1.0
        >>> same = np.tile(np.eye(3), (1000, 1, 1))
        >>> measure_coverage(same).hardly_sampled > 0.8
        True
    """
    views, counts = _binned(rotations[:, 2])
    directions = _spread(_DIRECTIONS)
    sampling = (np.abs(directions @ views.T) < _HALF_WIDTH) @ counts
    sampling = sampling / (_HALF_WIDTH * counts.sum())
    return Coverage(
        float(min(1.0, 1 / np.mean(1 / np.maximum(sampling, 1e-3)))),
        float(np.mean(sampling < _HARDLY)),
    )


def _binned(
    views: Float[np.ndarray, "images 3"],
) -> tuple[Float[np.ndarray, "cells 3"], Float[np.ndarray, " cells"]]:
    """Sum views in cells of equal area; opposite ones give the same slice."""
    up = np.where(views[:, 2:] < 0, -views, views)
    row = np.minimum((up[:, 2] * _ROWS).astype(np.int64), _ROWS - 1)
    turn = np.arctan2(up[:, 1], up[:, 0]) / (2 * np.pi) % 1.0
    cell = row * 2 * _ROWS + np.minimum((turn * 2 * _ROWS).astype(np.int64), 2 * _ROWS - 1)
    counts = np.bincount(cell, minlength=2 * _ROWS**2)
    sums = np.stack([np.bincount(cell, up[:, k], 2 * _ROWS**2) for k in range(3)], axis=1)
    used = counts > 0
    means = sums[used] / np.linalg.norm(sums[used], axis=1, keepdims=True)
    return means, counts[used].astype(np.float64)


def _spread(count: int) -> Float[np.ndarray, "directions 3"]:
    """Place directions evenly on a half sphere, along a spiral."""
    height = (np.arange(count) + 0.5) / count
    turn = np.arange(count) * np.pi * (3 - 5**0.5)
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(turn), radius * np.sin(turn), height], axis=1)
