"""Latent coordinates and contrast of every image, from inner products that a pass has stored.

Images are not needed here, so embeddings of any dimension take seconds. Images of one particle, as
in a tilt series, may be put together first: they then share coordinates and contrast.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from recovar.posterior import ImageStatistics, infer, least_squares

_BLOCK = 2048
"""Images handled at once; bounds the memory."""
_SUBSET = 2_500
"""Images that the spread of contrasts is estimated from."""
LEAST_RELIABILITY = 0.05
"""Components whose coordinates images determine less than this are not told of as found."""
_LEAST_SD, _MOST_SD = 0.01, 0.5
"""Bounds of the spread of contrasts."""
_SPREAD_ITERATIONS = 300
"""Enough where images say little of their contrasts and steps are short."""


@dataclass(frozen=True)
class Embedding:
    """Where every image lies along the first principal components."""

    coordinates: Float[np.ndarray, "images zdim"]
    """Posterior mean of z, with eigenvalues as prior variances."""
    covariance: Float[np.ndarray, "images zdim zdim"]
    """Posterior covariance of z; counts what is not known of the contrast."""
    contrast: Float[np.ndarray, " images"]
    """Factor on the signal of every image, posterior mean; 1 where it is not estimated."""
    coordinates_noreg: Float[np.ndarray, "images zdim"]
    """Least-squares estimate of z: unbiased, and noisier."""
    covariance_noreg: Float[np.ndarray, "images zdim zdim"]
    """Covariance of the error of the least-squares estimate."""
    eigenvalues: Float[np.ndarray, " zdim"]
    """Prior variances of z."""
    contrast_sd: Float[np.ndarray, " images"] | None = None
    """Posterior standard deviation of the contrast; None where it is not estimated."""
    limited: Bool[np.ndarray, " images"] | None = None
    """Whether the likeliest contrast is at an end of the range where it is sought; None where it
    is not estimated."""

    @property
    def reliability(self) -> Float[np.ndarray, " zdim"]:
        """Share of each coordinate's variance that the images determine, 0 to 1."""
        return determined_share(self.covariance, self.eigenvalues)

    def rows(self, chosen: Int[np.ndarray, " chosen"]) -> "Embedding":
        """Take these rows, each as often as it is named."""
        each = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "eigenvalues"}
        taken = {name: None if value is None else value[chosen] for name, value in each.items()}
        return replace(self, **taken)


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
        limited = np.zeros(len(plain.means)) if found.limited is None else found.limited
        parts.append(
            [
                found.means * scale,
                found.covariances * scale[:, None] * scale,
                found.contrast,
                plain.means,
                plain.covariances,
                np.sqrt(found.contrast_variance),
                limited,
            ]
        )
    arrays = [np.concatenate(each).astype(np.float32) for each in zip(*parts, strict=True)]
    *known, unsure, limited = arrays
    found = Embedding(*known, eigenvalues=variances)
    if contrast_sd is None:
        return found
    return replace(found, contrast_sd=unsure, limited=limited > 0)


def add_up(statistics: ImageStatistics, particle: Int[np.ndarray, " images"]) -> ImageStatistics:
    """Add the inner products of all images of a particle: what they tell together.

    Args:
        statistics: Of every image.
        particle: Which particle an image shows, numbered from 0 without gaps.
    """
    return ImageStatistics(
        sum_particles(statistics.gram, particle), sum_particles(statistics.response, particle)
    )


def sum_particles(
    values: Float[np.ndarray, "images *rest"], particle: Int[np.ndarray, " images"]
) -> Float[np.ndarray, "particles *rest"]:
    """Add what images of the same particle have; particles are numbered from 0 without gaps."""
    order = np.argsort(particle, kind="stable")
    starts = np.searchsorted(particle[order], np.arange(particle.max() + 1))
    return np.add.reduceat(values[order], starts, axis=0)


def estimate_contrast_sd(
    statistics: ImageStatistics,
    eigenvalues: Float[np.ndarray, " pcs"],
    start: float = 0.2,
    iterations: int = 4,
) -> float:
    """Estimate the spread of contrasts by maximum likelihood, from some thousand images.

    What an image says of its contrast is taken as Gaussian, which makes the spread that fits all
    of them best cheap to find; the approximation is renewed at that spread.

    Args:
        statistics: Inner products with mean and components, whitened.
        eigenvalues: Variance of the coordinate along each component.
        start: First guess.
        iterations: Times that the posteriors are computed.
    """
    count = len(statistics.gram)
    chosen = np.unique(np.linspace(0, count - 1, min(count, _SUBSET)).astype(np.int64))
    scaled = statistics.rows(chosen).scaled(np.sqrt(eigenvalues))
    spread = start
    for _ in range(iterations):
        found = [
            infer(scaled.rows(slice(first, first + _BLOCK)), spread)
            for first in range(0, len(chosen), _BLOCK)
        ]
        means = np.concatenate([each.contrast for each in found])
        variances = np.concatenate([each.contrast_variance for each in found])
        spread = _fit_spread(means, variances, spread)
    return spread


def _fit_spread(
    means: Float[np.ndarray, " images"], variances: Float[np.ndarray, " images"], prior: float
) -> float:
    """Find the spread about 1 that explains best what images say, by expectation maximization.

    Args:
        means: Posterior means of the contrasts.
        variances: Their posterior variances.
        prior: Spread that these were computed with.
    """
    precisions = np.maximum(1 / variances - 1 / prior**2, 0)
    pulls = (means - 1) / variances
    spread = prior
    for _ in range(_SPREAD_ITERATIONS):
        unsure = 1 / (precisions + 1 / spread**2)
        square = float(np.mean((unsure * pulls) ** 2 + unsure))
        spread = float(np.clip(np.sqrt(square), _LEAST_SD, _MOST_SD))
    return spread
