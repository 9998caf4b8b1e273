"""What one image tells about its latent coordinates and its contrast.

Whitened images follow y = a·A(μ + U z) + n with z ~ N(0, I), n ~ N(0, I) and a ~ N(1, s²), where A
is slicing times transfer function over noise. Only AᵀA and Aᵀy of [μ, U] are needed of an image.
"""

import equinox as eqx
import numpy as np
from jaxtyping import Complex, Float, Int

from recovar.core.batch import ImageBatch
from recovar.core.frequencies import Ball
from recovar.core.latents_numba import BLOCK, infer_blocks
from recovar.core.slicing import Operators

_CONTRASTS = np.linspace(0.1, 2.5, 49)
"""Where the likelihood of the contrast is scanned before Newton's method."""

_CONTRAST_LIMITS = 0.05, 5.0


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


class Latents(eqx.Module):
    """Latent coordinates and contrast of every image."""

    means: Float[np.ndarray, "images pcs"]
    """Posterior mean of z at the image's contrast."""
    covariances: Float[np.ndarray, "images pcs pcs"]
    """Posterior covariance of z at the image's contrast."""
    contrast: Float[np.ndarray, " images"]
    """Most likely contrast, z integrated out; 1 where it is not estimated."""
    contrast_variance: Float[np.ndarray, " images"]
    """Posterior variance of the contrast; 0 where it is not estimated."""


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


def infer(statistics: ImageStatistics, contrast_sd: float | None) -> Latents:
    """Compute the posterior of the coordinates, at the most likely contrast.

    Args:
        statistics: Of components scaled so that z has unit prior variance.
        contrast_sd: Prior standard deviation of the contrast about 1; None fixes it at 1.

    Source: marginal likelihood of the contrast with z integrated out; AᵀA is made tridiagonal
    once per image, after which every contrast costs as little as a component each.
    """
    images, pcs = len(statistics.gram), statistics.gram.shape[1] - 1
    latents = Latents(
        np.empty((images, pcs)), np.empty((images, pcs, pcs)), np.empty(images), np.empty(images)
    )
    infer_blocks(
        latents.means,
        latents.covariances,
        latents.contrast,
        latents.contrast_variance,
        statistics.gram,
        statistics.response,
        contrast_sd or 0.0,
        _CONTRASTS,
        _CONTRAST_LIMITS,
        BLOCK,
    )
    return latents


def log_likelihood(
    statistics: ImageStatistics, latents: Latents, contrast_sd: float | None
) -> Float[np.ndarray, " images"]:
    """Compute the logarithm of the likelihood of every image, coordinates and contrast left open.

    It counts from the likelihood of noise alone, which no component changes.

    Args:
        statistics: Of components scaled so that z has unit prior variance.
        latents: What `infer` made of them.
        contrast_sd: Prior standard deviation of the contrast about 1; None where it is 1.

    Source: log det of the posterior covariance of z by Gaussian integration; the contrast by
    Laplace's method about the most likely one.
    """
    a = latents.contrast
    gram, response = statistics.gram.astype(np.float64), statistics.response.astype(np.float64)
    pull = a[:, None] * (response[:, 1:] - a[:, None] * gram[:, 1:, 0])
    value = a * (response[:, 0] - 0.5 * a * gram[:, 0, 0])
    value += 0.5 * np.einsum("nk,nk->n", pull, latents.means)
    value += 0.5 * np.linalg.slogdet(latents.covariances).logabsdet
    if contrast_sd is None:
        return value
    width = np.log(latents.contrast_variance / contrast_sd**2)
    return value + 0.5 * (width - ((a - 1) / contrast_sd) ** 2)


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
