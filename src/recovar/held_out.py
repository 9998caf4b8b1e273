"""What components that were fitted to some images tell of other images.

More components always fit the images better that they were fitted to. Of images that were held
out they raise the likelihood only where these differ along them, too: what is noise lowers it.
"""

from dataclasses import dataclass

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float, Float64, Int
from scipy.special import logsumexp
from scipy.stats import norm

from recovar.core.halves import Halves
from recovar.latent_covariance import estimate_latent_covariance
from recovar.posterior import ImageStatistics, infer

LEVEL = 0.01
"""Probability with which noise passes one test."""

_NODES = 12
"""Contrasts per image at which the likelihood is integrated."""
_BLOCK = 512


class HeldOut(eqx.Module):
    """Images beside a mean and components that were fitted to others."""

    statistics: ImageStatistics
    """Of components scaled so that fitted coordinates have unit variance."""
    contrast_sd: float
    """Fitted spread of contrasts about 1; 0 where they are not fitted."""
    particle: Int[np.ndarray, " images"]
    """Which particle an image shows."""

    @property
    def determined(self) -> Float64[np.ndarray, " pcs"]:
        """Share of each fitted coordinate's variance that single images determine."""
        gram = np.einsum("nkk->nk", self.statistics.gram)[:, 1:].astype(np.float64)
        return np.mean(gram / (1 + gram), axis=0)


@dataclass(frozen=True)
class Verdict:
    """What images that were held out say of components in their order."""

    gains: Float64[np.ndarray, "particles pcs"]
    """What each component adds to the log likelihood of a particle, given those before it."""
    images: int

    @property
    def scores(self) -> Float64[np.ndarray, " pcs"]:
        """Give the total gain of each component over its standard error."""
        error = np.sqrt(len(self.gains)) * self.gains.std(0)
        total = self.gains.sum(0)
        return np.divide(total, error, out=np.zeros_like(total), where=error > 0)

    @property
    def gaining(self) -> Bool[np.ndarray, " pcs"]:
        """Tell which components noise would not be."""
        return self.scores > norm.isf(LEVEL)


@dataclass(frozen=True)
class GainCurve:
    """How much likelier images that were held out are with the first 1, 2, … components."""

    mean: Float64[np.ndarray, " pcs"]
    """Gain of the log likelihood over no components, per image."""
    error: Float64[np.ndarray, " pcs"]
    """Standard error of `mean`; images of one particle are not taken as independent."""


def judge(held: HeldOut) -> Verdict:
    """Ask images about components that were fitted to others, with the fitted variances.

    The expected gain of noise is below 0, so that the test errs on the safe side. A component
    gains if the variance along it is more than about half of what was fitted.
    """
    gains = np.diff(log_evidence(held.statistics, held.contrast_sd), axis=1)
    which = np.unique(held.particle, return_inverse=True)[1].reshape(-1)
    clusters = np.zeros((which.max(initial=-1) + 1, gains.shape[1]))
    np.add.at(clusters, which, gains)
    return Verdict(clusters, len(gains))


def average_gains(verdicts: Halves[Verdict]) -> GainCurve:
    """Average over the images of both half sets, up to the components that both have."""
    pcs = min(each.gains.shape[1] for each in verdicts)
    gains = np.concatenate([np.cumsum(each.gains[:, :pcs], axis=1) for each in verdicts])
    images = sum(each.images for each in verdicts)
    error = np.sqrt(len(gains)) * gains.std(0) / images
    return GainCurve(gains.sum(0) / images, error)


def reestimate_covariance(
    held: HeldOut, keep: Bool[np.ndarray, " pcs"]
) -> Float64[np.ndarray, "kept kept"]:
    """Estimate the covariance along some components from images that did not give them.

    Fitted variances count the noise that components were fitted to, and are made too small by
    priors; these are neither.

    Returns:
        Covariance of coordinates whose fitted covariance is the identity.
    """
    pcs = int(keep.sum())
    if not pcs:
        return np.zeros((0, 0))
    few = held.statistics.turned(np.eye(len(keep))[:, keep])
    return estimate_latent_covariance(few, np.ones(pcs), held.contrast_sd).covariance


def log_evidence(
    statistics: ImageStatistics, contrast_sd: float
) -> Float64[np.ndarray, "images ranks_and_none"]:
    """Compute the log likelihood of every image with the first 0, 1, 2, … components.

    Coordinates are integrated in closed form, and the contrast by Gauss and Hermite's rule about
    its most likely value. A constant per image is left out.

    Args:
        statistics: Of components scaled so that coordinates have unit variance.
        contrast_sd: Prior standard deviation of the contrast about 1; 0 fixes it at 1.
    """
    images = len(statistics.gram)
    nodes, weights = np.zeros(1), np.zeros(1)
    centre, width = np.ones(images), np.zeros(images)
    if contrast_sd:
        nodes, weights = np.polynomial.hermite.hermgauss(_NODES)
        weights = np.log(weights) + nodes**2
        found = infer(statistics, contrast_sd)
        centre, width = found.contrast, np.sqrt(2 * found.contrast_variance)
    evidence = np.zeros(statistics.response.shape)
    for start in range(0, images, _BLOCK):
        part = slice(start, start + _BLOCK)
        contrasts = centre[part, None] + width[part, None] * nodes
        value = _evidence_at(
            contrasts,
            statistics.gram[part].astype(np.float64),
            statistics.response[part].astype(np.float64),
        )
        if contrast_sd:
            prior = np.log(width[part, None]) - 0.5 * ((contrasts - 1) / contrast_sd) ** 2
            value += (weights + prior)[..., None]
        evidence[part] = logsumexp(value, axis=1)
    return evidence


def _evidence_at(
    contrasts: Float[np.ndarray, "images nodes"],
    gram: Float[np.ndarray, "images channels channels"],
    response: Float[np.ndarray, "images channels"],
) -> Float64[np.ndarray, "images nodes channels"]:
    """Integrate z at given contrasts, for all numbers of components by one factorization.

    With LLᵀ = I + a²G and w = L⁻¹h, the first k components contribute Σ_{j≤k} w_j²/2 − log L_jj.
    """
    pcs = gram.shape[1] - 1
    a = contrasts[..., None]
    pull = a * (response[:, None, 1:] - a * gram[:, None, 1:, 0])
    bordered = np.empty((*contrasts.shape, pcs + 1, pcs + 1))
    bordered[..., :pcs, :pcs] = np.eye(pcs) + a[..., None] ** 2 * gram[:, None, 1:, 1:]
    bordered[..., pcs, :pcs] = bordered[..., :pcs, pcs] = pull
    bordered[..., pcs, pcs] = 1 + np.sum(pull**2, axis=-1)
    root = np.linalg.cholesky(bordered)  # its last row is w, as I + a²G ≥ I keeps it definite
    steps = np.empty((*contrasts.shape, pcs + 1))
    steps[..., 0] = contrasts * (response[:, None, 0] - 0.5 * contrasts * gram[:, None, 0, 0])
    diagonal = np.einsum("...kk->...k", root)[..., :pcs]
    steps[..., 1:] = 0.5 * root[..., pcs, :pcs] ** 2 - np.log(diagonal)
    return np.cumsum(steps, axis=-1)
