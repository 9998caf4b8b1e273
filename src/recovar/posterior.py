"""What one image tells about its latent coordinates and its contrast.

Whitened images follow y = a·A(μ + U z) + n with z ~ N(0, I), n ~ N(0, I) and a ~ N(1, s²), where A
is slicing times transfer function over noise. Only AᵀA and Aᵀy of [μ, U] are needed of an image.
"""

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Complex, Float, Int

from recovar.core.batch import ImageBatch
from recovar.core.frequencies import Ball
from recovar.core.latents_numba import BLOCK, infer_blocks, infer_contrast_blocks
from recovar.core.slicing import Operators

_CONTRASTS = np.linspace(0.1, 2.5, 17)
"""Where the likelihood of the contrast is scanned before Newton's method."""

CONTRAST_LIMITS = 0.05, 3.0
"""The likeliest contrast is sought between these."""

_NODES = 5
"""Contrasts about the likeliest one that moments are averaged over."""


class ImageStatistics(eqx.Module):
    """Inner products of every image with the slices of the mean (first) and the components."""

    gram: Float[np.ndarray, "images channels channels"]
    """ŨᵀAᵀAŨ for Ũ = [μ, U]."""
    response: Float[np.ndarray, "images channels"]
    """ŨᵀAᵀy."""

    def leading(self, pcs: int) -> "ImageStatistics":
        """Keep the first components."""
        return ImageStatistics(self.gram[:, : pcs + 1, : pcs + 1], self.response[:, : pcs + 1])

    def rows(self, rows: slice | Int[np.ndarray, " kept"]) -> "ImageStatistics":
        """Keep some of the images."""
        return ImageStatistics(self.gram[rows], self.response[rows])

    def turned(self, axes: Float[np.ndarray, "pcs kept"]) -> "ImageStatistics":
        """Give the statistics of the combinations U·axes of the components U."""
        joined = np.zeros((len(axes) + 1, axes.shape[1] + 1))
        joined[0, 0] = 1
        joined[1:, 1:] = axes
        return ImageStatistics(joined.T @ self.gram @ joined, self.response @ joined)

    def scaled(self, factors: Float[np.ndarray, " pcs"]) -> "ImageStatistics":
        """Give the statistics of components that are `factors` times as large."""
        all_factors = np.concatenate([[1.0], factors])
        return ImageStatistics(
            self.gram * all_factors[:, None] * all_factors, self.response * all_factors
        )


class WeightedMoments(eqx.Module):
    """Moments of z̃ = (1, z) with the contrast a as a weight, which the next fit needs."""

    first: Float[np.ndarray, "images channels"]
    """E(a z̃)."""
    second: Float[np.ndarray, "images channels channels"]
    """E(a² z̃ z̃ᵀ)."""


class Latents(eqx.Module):
    """Latent coordinates and contrast of every image."""

    means: Float[np.ndarray, "images pcs"]
    """Posterior mean of z."""
    covariances: Float[np.ndarray, "images pcs pcs"]
    """Posterior covariance of z."""
    contrast: Float[np.ndarray, " images"]
    """Posterior mean of the contrast; 1 where it is not estimated."""
    contrast_variance: Float[np.ndarray, " images"]
    """Posterior variance of the contrast; 0 where it is not estimated."""
    limited: Bool[np.ndarray, " images"] | None = None
    """Whether the likeliest contrast is at one of `CONTRAST_LIMITS`; None where contrast is not
    estimated."""
    evidence: Float[np.ndarray, " images"] | None = None
    """Logarithm of the likelihood of an image over that of noise alone, coordinates and contrast
    left open; None where contrast is not estimated."""
    weight: Float[np.ndarray, " images"] | None = None
    """Probability that an image shows the molecule at all; None takes it as 1."""
    weighted: WeightedMoments | None = None
    """None where contrast and coordinates are taken as independent of each other."""


def image_statistics(
    batch: ImageBatch,
    spectra: Complex[np.ndarray, "voxels channels"],
    ball: Ball,
    operators: Operators,
) -> ImageStatistics:
    """Compare whitened images with slices of the mean and the components.

    Args:
        batch: Whitened images on the disc that belongs to `ball`.
        spectra: Mean and components on the ball.
        ball: Where they lie.
        operators: Implementation of the slicing.
    """
    gram, response = operators.inner_products(
        spectra, batch.values, batch.transfer, batch.rotations, batch.disc, ball
    )
    return ImageStatistics(np.asarray(gram), np.asarray(response))


def infer(
    statistics: ImageStatistics, contrast_sd: float | None, *, weighted: bool = False
) -> Latents:
    """Compute the posterior of the coordinates and of the contrast, each with the other unknown.

    Args:
        statistics: Of components scaled so that z has unit prior variance.
        contrast_sd: Prior standard deviation of the contrast about 1; None fixes it at 1.
        weighted: Compute `Latents.weighted` as well, if the contrast is not fixed.

    Source: z is Gaussian given the contrast and integrated out exactly; over the contrast,
    Gauss-Hermite quadrature about the likeliest one. AᵀA is made tridiagonal once per image, after
    which every contrast costs little.
    """
    images, pcs = len(statistics.gram), statistics.gram.shape[1] - 1
    if contrast_sd is None:
        means, covariances = np.empty((images, pcs)), np.empty((images, pcs, pcs))
        infer_blocks(means, covariances, statistics.gram, statistics.response, BLOCK)
        return Latents(means, covariances, np.ones(images), np.zeros(images))
    contrasts, first = np.empty((images, 4)), np.empty((images, 3, pcs))
    second = np.empty((images, 2 if weighted else 1, pcs, pcs))
    infer_contrast_blocks(
        contrasts,
        first,
        second,
        statistics.gram,
        statistics.response,
        contrast_sd,
        _CONTRASTS,
        CONTRAST_LIMITS,
        _quadrature(_NODES),
        BLOCK,
    )
    return Latents(
        first[:, 0],
        second[:, 0],
        contrasts[:, 0],
        contrasts[:, 1],
        limited=contrasts[:, 2] > 0,
        evidence=contrasts[:, 3],
        weighted=_weighted_moments(contrasts, first, second[:, 1]) if weighted else None,
    )


def _quadrature(count: int) -> Float[np.ndarray, "2 nodes"]:
    """Give nodes of a Gauss-Hermite rule, and logarithms of weights over the normal density."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    return np.stack([nodes, np.log(weights) + nodes**2 / 2])


def _weighted_moments(
    contrasts: Float[np.ndarray, "images 4"],
    first: Float[np.ndarray, "images 3 pcs"],
    second: Float[np.ndarray, "images pcs pcs"],
) -> WeightedMoments:
    """Put moments with and without z together."""
    mean, square = contrasts[:, :1], contrasts[:, :1] ** 2 + contrasts[:, 1:2]
    pcs = second.shape[-1]
    whole = np.empty((len(second), pcs + 1, pcs + 1))
    whole[:, 0, 0] = square[:, 0]
    whole[:, 0, 1:] = whole[:, 1:, 0] = first[:, 2]
    whole[:, 1:, 1:] = second
    return WeightedMoments(np.concatenate([mean, first[:, 1]], axis=1), whole)


def log_likelihood(statistics: ImageStatistics, latents: Latents) -> Float[np.ndarray, " images"]:
    """Compute the logarithm of the likelihood of every image, coordinates and contrast left open.

    It counts from the likelihood of noise alone, which no component changes.

    Args:
        statistics: Of components scaled so that z has unit prior variance.
        latents: What `infer` made of them.

    Source: log det of the posterior covariance of z by Gaussian integration; over the contrast,
    `infer` has integrated.
    """
    if latents.evidence is not None:
        return latents.evidence
    gram, response = statistics.gram.astype(np.float64), statistics.response.astype(np.float64)
    pull = response[:, 1:] - gram[:, 1:, 0]
    value = response[:, 0] - 0.5 * gram[:, 0, 0]
    value += 0.5 * np.einsum("nk,nk->n", pull, latents.means)
    return value + 0.5 * np.linalg.slogdet(latents.covariances).logabsdet


def least_squares(
    statistics: ImageStatistics, contrast: Float[np.ndarray, " images"], ridge: float = 1e-6
) -> Latents:
    """Compute coordinates without a prior, at given contrasts.

    Args:
        statistics: Of the components.
        contrast: Contrast of every image.
        ridge: Added to AᵀA, as a share of its average diagonal, to keep it invertible.
    """
    gram = statistics.gram[:, 1:, 1:].astype(np.float64) * contrast[:, None, None] ** 2
    pcs = gram.shape[-1]
    scale = np.trace(gram, axis1=1, axis2=2) / pcs
    covariances = np.linalg.inv(
        gram + (ridge * scale + np.finfo(np.float32).tiny)[:, None, None] * np.eye(pcs)
    )
    pull = contrast[:, None] * (
        statistics.response[:, 1:] - contrast[:, None] * statistics.gram[:, 1:, 0]
    )
    means = np.einsum("nij,nj->ni", covariances, pull)
    return Latents(means, covariances, contrast, np.zeros(len(gram)))
