"""Latent coordinates and contrast of every image, from inner products that a pass has stored.

Images are not needed here, so embeddings of any dimension take seconds.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from recovar.posterior import ImageStatistics, infer, least_squares

_BLOCK = 2048
"""Images handled at once; bounds the memory."""
_SUBSET = 2_500
"""Images that the spread of contrasts is estimated from."""
LEAST_RELIABILITY = 0.05
"""Components whose coordinates images determine less than this are not told of as found."""
_LEAST_SD, _MOST_SD = 0.01, 0.5
"""Bounds of the spread of contrasts."""


@dataclass(frozen=True)
class Embedding:
    """Where every image lies along the first principal components."""

    coordinates: Float[np.ndarray, "images zdim"]
    """Posterior mean of z, with eigenvalues as prior variances."""
    covariance: Float[np.ndarray, "images zdim zdim"]
    """Posterior covariance of z."""
    contrast: Float[np.ndarray, " images"]
    """Factor on the signal of every image; 1 where it is not estimated."""
    coordinates_noreg: Float[np.ndarray, "images zdim"]
    """Least-squares estimate of z: unbiased, and noisier."""
    covariance_noreg: Float[np.ndarray, "images zdim zdim"]
    """Covariance of the error of the least-squares estimate."""
    eigenvalues: Float[np.ndarray, " zdim"]
    """Prior variances of z."""

    @property
    def reliability(self) -> Float[np.ndarray, " zdim"]:
        """Share of each coordinate's variance that the images determine, 0 to 1."""
        return determined_share(self.covariance, self.eigenvalues)


def determined_share(
    covariance: Float[np.ndarray, "images zdim zdim"], eigenvalues: Float[np.ndarray, " zdim"]
) -> Float[np.ndarray, " zdim"]:
    """Give the share of each coordinate's variance that images determine, 0 to 1.

    Args:
        covariance: Of the errors of coordinates.
        eigenvalues: Prior variances of the coordinates.
    """
    unsure = np.einsum("nkk->k", covariance) / len(covariance)
    return np.clip(1 - unsure / np.maximum(eigenvalues, np.finfo(np.float64).tiny), 0, 1)


def embed(
    statistics: ImageStatistics,
    eigenvalues: Float[np.ndarray, " pcs"],
    zdim: int,
    contrast_sd: float | None = None,
) -> Embedding:
    """Embed all images along the first principal components.

    Args:
        statistics: Inner products with mean and components, whitened.
        eigenvalues: Variance of the coordinate along each component.
        zdim: Number of components to use.
        contrast_sd: Spread of contrasts about 1; None takes every contrast as 1.
    """
    variances = eigenvalues[:zdim]
    scale = np.sqrt(variances)
    parts: list[list[np.ndarray]] = []
    for start in range(0, len(statistics.gram), _BLOCK):
        block = statistics.rows(slice(start, start + _BLOCK)).leading(zdim)
        found = infer(block.scaled(scale), contrast_sd)
        plain = least_squares(block, found.contrast)
        parts.append(
            [
                found.means * scale,
                found.covariances * scale[:, None] * scale,
                found.contrast,
                plain.means,
                plain.covariances,
            ]
        )
    arrays = [np.concatenate(each).astype(np.float32) for each in zip(*parts, strict=True)]
    return Embedding(*arrays, eigenvalues=variances)


def estimate_contrast_sd(
    statistics: ImageStatistics,
    eigenvalues: Float[np.ndarray, " pcs"],
    start: float = 0.2,
    iterations: int = 6,
) -> float:
    """Estimate the spread of contrasts by maximum likelihood, from some thousand images.

    Args:
        statistics: Inner products with mean and components, whitened.
        eigenvalues: Variance of the coordinate along each component.
        start: First guess.
        iterations: Steps of expectation maximization.
    """
    count = len(statistics.gram)
    chosen = np.unique(np.linspace(0, count - 1, min(count, _SUBSET)).astype(np.int64))
    scaled = statistics.rows(chosen).scaled(np.sqrt(eigenvalues))
    spread = start
    for _ in range(iterations):
        squares = 0.0
        for first in range(0, len(chosen), _BLOCK):
            found = infer(scaled.rows(slice(first, first + _BLOCK)), spread)
            squares += float(np.sum((found.contrast - 1) ** 2 + found.contrast_variance))
        spread = float(np.clip(np.sqrt(squares / len(chosen)), _LEAST_SD, _MOST_SD))
    return spread
