"""How likely observed coordinates are under a density, with the errors of every image."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float64

from recovar.density.errors import ErrorClasses, Observations, group_errors
from recovar.density.grid import LatentGrid, Shares

_OUTLIERS = 1e-3
"""Share of images taken to lie anywhere, so that single ones do not count for much."""
_LEAST_ERROR = 0.6
"""Smallest standard deviation of an error, in grid spacings; narrower ones ring."""


@runtime_checkable
class Likelihood(Protocol):
    """How likely what was observed is under a density on a grid."""

    @property
    def grid(self) -> LatentGrid:
        """Where densities are."""
        ...

    @property
    def precision(self) -> np.dtype:
        """Of the numbers that are worked with."""
        ...

    def count(self, weights: Float[np.ndarray, " images"]) -> Float[np.ndarray, "..."]:
        """Count what was observed.

        Args:
            weights: How often each image counts.
        """
        ...

    def evaluate(
        self, probabilities: Float[np.ndarray, "..."], counts: Float[np.ndarray, "..."]
    ) -> tuple[float, Float[np.ndarray, "..."]]:
        """Compute the logarithm of the likelihood, and its derivatives.

        Args:
            probabilities: Of the points of the box.
            counts: What was observed.
        """
        ...


@dataclass(frozen=True)
class BlurLikelihood:
    """The likelihood of densities of which errors are blurs, one for each class of them."""

    grid: LatentGrid
    shares: Shares
    classes: ErrorClasses
    transfers: Float[np.ndarray, "classes ..."]
    """Fourier transforms of the distributions of the errors."""

    @property
    def precision(self) -> np.dtype:
        """Of the numbers that are worked with."""
        return self.transfers.dtype

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
            probabilities: Of the points of the box.
            counts: Observed on the larger one, by class.
        """
        spectrum = self.grid.transform(self.grid.embed(probabilities))
        blurred = self.grid.invert(spectrum * self.transfers)
        np.maximum(blurred, 0, out=blurred)
        blurred *= 1 - _OUTLIERS
        blurred += _OUTLIERS / blurred[0].size
        total = float(np.vdot(counts, np.log(blurred)))
        np.divide(counts, blurred, out=blurred)
        pull = (self.grid.transform(blurred) * self.transfers).sum(0)
        return total, (1 - _OUTLIERS) * self.grid.invert(pull)[self.grid.inner]


def make_likelihood(
    observations: Observations, grid: LatentGrid, classes: int, seed: int = 0
) -> BlurLikelihood:
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
    return BlurLikelihood(grid, grid.locate(observations.values), grouped, transfers)


def _widen(
    covariance: Float64[np.ndarray, "zdim zdim"], spacing: Float64[np.ndarray, " zdim"]
) -> Float64[np.ndarray, "zdim zdim"]:
    scale = np.multiply.outer(spacing, spacing)
    values, vectors = np.linalg.eigh(covariance / scale)
    return (vectors * np.maximum(values, _LEAST_ERROR**2)) @ vectors.T * scale
