"""How much every image counts at a point of the latent space.

An image does not lie at a point: it has a posterior, wide where the image says little. What counts
is the share of the posterior that a kernel around the point covers, so images that say nothing
count little everywhere, instead of everywhere as with distances in units of their own precision.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from recovar.embedding import determined_share
from recovar.errors import InputError

_BLOCK = 4096
"""Images handled at once; bounds the memory."""
_WIDEST = 3.0
"""Largest bandwidth, as a share of the coordinates' variance: wider ones are as good as none."""
_LEAST_SHARE = 0.3
"""Smallest bandwidth, as a share of the variance that posteriors have on average in the coordinate
that is known best: narrower kernels see the same images."""


@dataclass(frozen=True)
class LatentPosterior:
    """Where every image lies, and how sure that is."""

    means: Float[np.ndarray, "images zdim"]
    covariances: Float[np.ndarray, "images zdim zdim"]
    variances: Float[np.ndarray, " zdim"]
    """Of the coordinates over all images, the prior of the posteriors."""

    def __len__(self) -> int:
        """Count the images."""
        return len(self.means)

    @property
    def reliability(self) -> Float[np.ndarray, " zdim"]:
        """Share of each coordinate's variance that the images determine, 0 to 1."""
        return determined_share(self.covariances, self.variances)

    def check(self, points: Float[np.ndarray, "states _"]) -> None:
        """Refuse points that cannot lie among these images.

        Raises:
            InputError: If the points have another number of coordinates, or are not finite.
        """
        zdim = self.means.shape[1]
        if points.shape[1] != zdim:
            raise InputError(
                f"Expected latent points of {zdim} coordinates, like the embedding, got "
                f"{points.shape[1]}. Choose the embedding with --zdim, or correct the points."
            )
        if not np.isfinite(points).all():
            raise InputError("Expected finite latent points, got some that are not.")


@dataclass(frozen=True)
class KernelWeights:
    """Weights of all images at all points, for several bandwidths, and where images lie then."""

    weights: Float[np.ndarray, "images states levels"]
    """Largest is 1 for every point and bandwidth."""
    means: Float[np.ndarray, "images levels zdim"]
    """What an image has to be moved by for its position in the kernel, if this was at 0."""
    shifts: Float[np.ndarray, "states levels zdim"]
    """Mean over the weighted images of the part of this that depends on the point."""

    @property
    def effective_images(self) -> Float[np.ndarray, "states levels"]:
        """Number of equally weighted images that would say as much, (Σw)² / Σw²."""
        total = self.weights.sum(0, dtype=np.float64)
        return total**2 / np.square(self.weights, dtype=np.float64).sum(0)


def choose_bandwidths(posterior: LatentPosterior, count: int) -> Float[np.ndarray, " levels"]:
    """Choose bandwidths in geometric steps, narrowest first.

    The narrowest is set by the posterior of the coordinate that is known best, below which kernels
    see the same images.

    Args:
        posterior: Where the images lie.
        count: How many.

    Returns:
        Shares of the coordinates' variances.
    """
    narrowest = _LEAST_SHARE * (1 - float(posterior.reliability.max()))
    return np.geomspace(np.clip(narrowest, 1e-3, 0.1 * _WIDEST), _WIDEST, count)


def kernel_weights(
    posterior: LatentPosterior,
    points: Float[np.ndarray, "states zdim"],
    bandwidths: Float[np.ndarray, " levels"],
) -> KernelWeights:
    """Weigh images by the share of their posterior that a Gaussian kernel covers.

    With the kernel K of covariance hΛ at a point z*, the posterior N(m, S) of an image and
    T = S + hΛ, the weight is ∫ K p dz = N(z*; m, T). Under the product of both the image lies at
    z* + hΛ T⁻¹ (m − z*) on average: `means` is hΛ T⁻¹ m, and `shifts` the mean of hΛ T⁻¹ z*.

    Args:
        posterior: Where the images lie; its variances are Λ.
        points: Latent points z*.
        bandwidths: Values of h.

    Raises:
        InputError: If the points do not fit the posterior.
    """
    posterior.check(points)
    images, zdim = posterior.means.shape
    states, levels = len(points), len(bandwidths)
    logs = np.empty((images, states, levels), np.float32)
    means = np.empty((images, levels, zdim), np.float32)
    for block in _blocks(images):
        for level, width in enumerate(bandwidths):
            narrowed = _narrow(posterior, block, width)
            logs[block, :, level] = _log_overlap(posterior.means[block], points, narrowed.root)
            means[block, level] = np.einsum(
                "nkl,nl->nk", narrowed.move, posterior.means[block], optimize=True
            )
    weights = np.exp(logs - logs.max(0))
    moves = np.zeros((states, levels, zdim, zdim))
    for block in _blocks(images):
        for level, width in enumerate(bandwidths):
            narrowed = _narrow(posterior, block, width)
            moves[:, level] += np.tensordot(weights[block, :, level].T, narrowed.move, 1)
    moves /= weights.sum(0, dtype=np.float64)[..., None, None]
    return KernelWeights(weights, means, np.einsum("sbkl,sl->sbk", moves, points))


@dataclass(frozen=True)
class _Narrowed:
    root: Float[np.ndarray, "images zdim zdim"]
    """Lower triangular, root · rootᵀ = S + hΛ."""
    move: Float[np.ndarray, "images zdim zdim"]
    """hΛ (S + hΛ)⁻¹."""


def _narrow(posterior: LatentPosterior, block: slice, width: float) -> _Narrowed:
    kernel = np.diag(width * posterior.variances)
    total = posterior.covariances[block] + kernel
    return _Narrowed(np.linalg.cholesky(total), kernel @ np.linalg.inv(total))


def _log_overlap(
    means: Float[np.ndarray, "images zdim"],
    points: Float[np.ndarray, "states zdim"],
    root: Float[np.ndarray, "images zdim zdim"],
) -> Float[np.ndarray, "images states"]:
    """Compute log N(z*; m, T) up to a constant."""
    apart = points.T[None] - means[:, :, None]
    scaled = np.linalg.solve(root, apart)
    volume = np.log(np.einsum("nkk->nk", root)).sum(1)
    return -0.5 * np.square(scaled).sum(1) - volume[:, None]


def _blocks(images: int) -> Iterator[slice]:
    return (slice(start, start + _BLOCK) for start in range(0, images, _BLOCK))


def mahalanobis(
    posterior: LatentPosterior, points: Float[np.ndarray, "states zdim"]
) -> Float[np.ndarray, "images states"]:
    """Measure squared distances in units of every image's own uncertainty.

    Source: Gilles & Singer 2025, d = (z* − m)ᵀ S⁻¹ (z* − m).

    Raises:
        InputError: If the points do not fit the posterior.
    """
    posterior.check(points)
    distances = np.empty((len(posterior), len(points)))
    for block in _blocks(len(posterior)):
        apart = points.T[None] - posterior.means[block][:, :, None]
        solved = np.linalg.solve(posterior.covariances[block], apart)
        distances[block] = np.einsum("nks,nks->ns", apart, solved)
    return distances


def within_quantile(
    posterior: LatentPosterior, points: Float[np.ndarray, "states zdim"], quantile: float
) -> Float[np.ndarray, "images states"]:
    """Select the images whose distance is likely for an image at the point.

    Source: the rule of the first release: 1 where d ≤ the quantile of χ² with zdim degrees of
    freedom, else 0.
    """
    limit = stats.chi2.ppf(quantile, points.shape[1])
    return (mahalanobis(posterior, points) <= limit).astype(np.float32)


def quantile_of_deviations(deviations: float) -> float:
    """Give the share of a normal distribution within so many standard deviations.

    Example:
        >>> round(quantile_of_deviations(2.0), 4)
        0.9545
    """
    return float(stats.chi2.cdf(deviations**2, 1))
