"""What one image tells about its latent coordinates and its contrast.

Whitened images follow y = a·A(μ + U z) + n with z ~ N(0, I), n ~ N(0, I) and a ~ N(1, s²), where A
is slicing times transfer function over noise. Only AᵀA and Aᵀy of [μ, U] are needed of an image.
"""

import equinox as eqx
import numpy as np
from jaxtyping import Complex, Float

from recovar.core.batch import ImageBatch
from recovar.core.frequencies import Ball
from recovar.core.slicing import Operators

_CONTRASTS = np.linspace(0.1, 2.5, 49)
"""Where the likelihood of the contrast is scanned before Newton's method."""

_LEAST_CONTRAST, _MOST_CONTRAST = 0.05, 5.0


class ImageStatistics(eqx.Module):
    """Inner products of every image with the slices of the mean (first) and the components."""

    gram: Float[np.ndarray, "images 1+pcs 1+pcs"]
    """ŨᵀAᵀAŨ for Ũ = [μ, U]."""
    response: Float[np.ndarray, "images 1+pcs"]
    """ŨᵀAᵀy."""

    def leading(self, pcs: int) -> "ImageStatistics":
        """Keep the first components."""
        return ImageStatistics(self.gram[:, : pcs + 1, : pcs + 1], self.response[:, : pcs + 1])

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
    spectra: Complex[np.ndarray, "voxels 1+pcs"],
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

    Source: marginal likelihood of the contrast with z integrated out; one diagonalization of
    AᵀA per image serves all contrasts.
    """
    gram = statistics.gram.astype(np.float64)
    response = statistics.response.astype(np.float64)
    curvatures, axes = np.linalg.eigh(gram[:, 1:, 1:])
    evidence = _Evidence(
        np.maximum(curvatures, 0),
        np.einsum("nij,ni->nj", axes, response[:, 1:]),
        np.einsum("nij,ni->nj", axes, gram[:, 1:, 0]),
        response[:, 0],
        gram[:, 0, 0],
    )
    if contrast_sd is None:
        contrast, variance = np.ones(len(gram)), np.zeros(len(gram))
    else:
        contrast, variance = evidence.most_likely_contrast(contrast_sd)
    precision = 1 + contrast[:, None] ** 2 * evidence.curvatures
    means = evidence.pull(contrast[:, None])[:, 0] / precision
    return Latents(
        np.einsum("nij,nj->ni", axes, means),
        np.einsum("nij,nj,nkj->nik", axes, 1 / precision, axes),
        contrast,
        variance,
    )


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


class _Evidence(eqx.Module):
    """Log-likelihood of the contrast along the principal axes of AᵀA."""

    curvatures: Float[np.ndarray, "images pcs"]
    data: Float[np.ndarray, "images pcs"]
    mean_overlap: Float[np.ndarray, "images pcs"]
    mean_response: Float[np.ndarray, " images"]
    mean_power: Float[np.ndarray, " images"]

    def pull(
        self, contrast: Float[np.ndarray, "images tries"]
    ) -> Float[np.ndarray, "images tries pcs"]:
        """Compute a Uᵀ Aᵀ(y − a A μ)."""
        a = contrast[..., None]
        return a * self.data[:, None] - a**2 * self.mean_overlap[:, None]

    def likelihood(
        self, contrast: Float[np.ndarray, "images tries"], sd: float
    ) -> Float[np.ndarray, "images tries"]:
        """Evaluate the log posterior of contrasts, z integrated out."""
        precision = 1 + contrast[..., None] ** 2 * self.curvatures[:, None]
        explained = self.pull(contrast) ** 2 / precision - np.log(precision)
        return (
            0.5 * explained.sum(-1)
            + contrast * self.mean_response[:, None]
            - 0.5 * contrast**2 * self.mean_power[:, None]
            - 0.5 * ((contrast - 1) / sd) ** 2
        )

    def most_likely_contrast(
        self, sd: float
    ) -> tuple[Float[np.ndarray, " images"], Float[np.ndarray, " images"]]:
        """Maximize over the contrast: scan, then Newton's method by differences."""
        scanned = self.likelihood(np.broadcast_to(_CONTRASTS, (len(self.data), 49)), sd)
        step = _CONTRASTS[1] - _CONTRASTS[0]
        contrast = _CONTRASTS[scanned.argmax(1)]
        curvature = np.full(len(contrast), -1 / sd**2)
        for width in (step, step / 4, step / 16, step / 16):
            tries = contrast[:, None] + width * np.array([-1.0, 0.0, 1.0])
            below, here, above = self.likelihood(tries, sd).T
            curvature = np.minimum((above - 2 * here + below) / width**2, -0.1 / sd**2)
            move = (above - below) / (2 * width * curvature)
            contrast = np.clip(
                contrast - np.clip(move, -2 * step, 2 * step), _LEAST_CONTRAST, _MOST_CONTRAST
            )
        return contrast, -1 / curvature
