"""How likely observed coordinates are under a density, with the errors of every image."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

from recovar.density.errors import ErrorClasses, Observations, group_errors
from recovar.density.grid import LatentGrid, Shares

_OUTLIERS = 1e-3
"""Share of images taken to lie anywhere, so that single ones do not count for much."""
_LEAST_ERROR = 0.6
"""Smallest standard deviation of an error, in grid spacings; narrower ones ring."""


@dataclass(frozen=True)
class Likelihood:
    """The likelihood of densities on a grid; each class of errors is one blur."""

    grid: LatentGrid
    shares: Shares
    classes: ErrorClasses
    transfers: Float[np.ndarray, "classes ..."]
    """Fourier transforms of the distributions of the errors."""

    def count(self, weights: Float[np.ndarray, " images"]) -> Float[np.ndarray, "classes ..."]:
        """Count images at grid points.

        Args:
            weights: How often each image counts.
        """
        counts = self.shares.count(self.classes.labels, len(self.transfers), weights)
        return counts.astype(self.transfers.dtype)

    def evaluate(
        self, probabilities: Float[np.ndarray, "..."], counts: Float[np.ndarray, "classes ..."]
    ) -> tuple[float, Float[np.ndarray, "..."]]:
        """Compute the logarithm of the likelihood, and its derivatives.

        Args:
            probabilities: Of the points of the larger box.
            counts: Observed there, by class.
        """
        blurred = self.grid.invert(self.grid.transform(probabilities) * self.transfers)
        np.maximum(blurred, 0, out=blurred)
        blurred *= 1 - _OUTLIERS
        blurred += _OUTLIERS / probabilities.size
        total = float(np.vdot(counts, np.log(blurred)))
        np.divide(counts, blurred, out=blurred)
        pull = (self.grid.transform(blurred) * self.transfers).sum(0)
        return total, (1 - _OUTLIERS) * self.grid.invert(pull)


def make_likelihood(
    observations: Observations, grid: LatentGrid, classes: int, seed: int = 0
) -> Likelihood:
    """Prepare the likelihood of densities on a grid.

    Images off the larger box are left out.

    Args:
        observations: Coordinates with their errors.
        grid: Where densities are wanted.
        classes: How many kinds of errors to tell apart; with one for each image none is averaged.
        seed: Of the classes.
    """
    grouped = group_errors(observations.covariances, classes, seed)
    precision = np.dtype(np.float64 if observations.dimensions < 3 else np.float32)
    widened = [_widen(covariance, grid.spacing) for covariance in grouped.covariances]
    transfers = np.stack([grid.gaussian(covariance, precision) for covariance in widened])
    return Likelihood(grid, grid.locate(observations.values), grouped, transfers)


def _widen(
    covariance: Float64[np.ndarray, "zdim zdim"], spacing: Float64[np.ndarray, " zdim"]
) -> Float64[np.ndarray, "zdim zdim"]:
    scale = np.multiply.outer(spacing, spacing)
    values, vectors = np.linalg.eigh(covariance / scale)
    return (vectors * np.maximum(values, _LEAST_ERROR**2)) @ vectors.T * scale
