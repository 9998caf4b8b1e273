"""Where a density lies and how wide it is, from moments; and the grid that it fits on."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from recovar.density.errors import Observations
from recovar.density.grid import LatentGrid

_PERCENTILES = 0.5, 99.5
_WIDER = 2.5
"""Standard deviations of a coordinate that the grid goes beyond its percentiles."""
_REACH = 3.0
"""Standard deviations of large errors that fit into the margin."""


@dataclass(frozen=True)
class Shape:
    """Mean and covariance of coordinates without their errors."""

    mean: Float64[np.ndarray, " zdim"]
    covariance: Float64[np.ndarray, "zdim zdim"]
    moves: bool
    """Whether coordinates vary by more than errors of that size would by chance."""


def estimate_shape(observations: Observations) -> Shape:
    """Take the errors' covariance off that of the coordinates.

    What is left is at least as large as could be there unseen: two standard deviations of the
    variance that errors alone have in so many images.
    """
    errors = observations.covariances
    sizes = np.einsum("nii->ni", errors)
    weights = 1 / (1 + (sizes / np.median(sizes, axis=0)).mean(1))
    weights /= weights.sum()
    mean = weights @ observations.values
    rest = observations.values - mean
    error = np.einsum("n,nij->ij", weights, errors)
    root = np.linalg.cholesky(error)
    excess = np.einsum("n,ni,nj->ij", weights, rest, rest) - error
    relative, vectors = np.linalg.eigh(np.linalg.solve(root, np.linalg.solve(root, excess).T))
    least = 2 * np.sqrt(2 * (weights**2).sum())
    axes = root @ vectors
    covariance = (axes * np.maximum(relative, least)) @ axes.T
    # Of several directions the largest of all is above two standard deviations more often.
    return Shape(mean, covariance, bool(relative.max() > (1 + 0.25 * len(mean)) * least))


def make_grid(observations: Observations, shape: Shape, points: int) -> LatentGrid:
    """Make a grid that holds the density, with margins that hold most of the errors.

    Args:
        observations: Coordinates with their errors.
        shape: Of the density.
        points: Grid points along each axis.
    """
    prior = np.broadcast_to(shape.covariance, observations.covariances.shape)
    gain = np.linalg.solve(observations.covariances + prior, prior)
    shrunk = shape.mean + np.einsum("nji,nj->ni", gain, observations.values - shape.mean)
    unsure = np.median(np.einsum("nii->ni", prior - prior @ gain), axis=0)
    ends = np.percentile(shrunk, _PERCENTILES, axis=0)
    low, high = ends + _WIDER * np.sqrt(np.maximum(unsure, 0)) * np.array([[-1], [1]])
    large = np.percentile(np.einsum("nii->ni", observations.covariances), 90, axis=0)
    margin = np.ceil(_REACH * np.sqrt(large) * (points - 1) / (high - low)).astype(int)
    return LatentGrid(low, high, (points,) * len(low), tuple(margin.tolist()))
