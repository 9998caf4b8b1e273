"""The power of the noise, shell by shell, from images of a molecule.

Noise is taken to be stationary, with a radial spectrum. It is measured where the molecule is not,
on what is left of the images after the mean is subtracted. Profiles are variances of the
unnormalized transform on shells 0 … size/2 − 1.
"""

import logging
from dataclasses import dataclass
from typing import Literal

import equinox as eqx
import numpy as np
import scipy.fft
from jaxtyping import Array, Float, Inexact, Int

from recovar.compute.accumulate import Images, Statistic, apart
from recovar.compute.executors import Checkpoint, LocalExecutor
from recovar.core import fourier
from recovar.core.batch import ImageBatch
from recovar.core.frequencies import Ball, Disc
from recovar.core.grid import expand_shells, half_weights, image_radii
from recovar.core.masks import project_mask
from recovar.core.slicing import Operators
from recovar.core.volumes import to_ball
from recovar.regularization import shell_sums

logger = logging.getLogger(__name__)

NoiseModel = Literal["radial", "white"]
"""How noise varies with frequency."""

NoiseMethod = Literal["residual", "outside", "masked", "inside", "whole", "published"]
"""Where noise is measured.

* `residual`: residuals outside the masks; inside, where that is lower by more than a tenth, for
  there may be other particles around. Where masks leave only the corners it is `whole`.
* `outside`: images outside the masks, nothing subtracted.
* `masked`: the same, without undoing the blur of the spectrum by the masks.
* `inside`: residuals inside the masks: noise and heterogeneity, an upper bound.
* `whole`: residuals of whole images, an upper bound too, with the smallest statistical error.
* `published`: the lower one of `outside` and `inside`, bounded by the 5th percentile over each
  shell of the residual power backprojected to the volume.
"""

_SOFTNESS = 5
"""Blur of the image masks in pixels."""

_LEAST_OUTSIDE = 0.02
"""Share of the image that must be outside the masks for noise to be measured there."""

_LEAST_SPAN = 0.1
"""Share of the outside that must meet the outside again under any shift."""


@dataclass(frozen=True)
class Noise:
    """The noise, and what it was judged from."""

    variance: Float[np.ndarray, " shells"]
    """Variance of the noise: the estimate to use."""
    power: Float[np.ndarray, " shells"]
    """Mean power of the images, signal included."""
    outside: Float[np.ndarray, " shells"]
    """Variance of residuals outside the masks."""
    inside: Float[np.ndarray, " shells"]
    """Variance of residuals inside the masks: noise and heterogeneity."""
    whole: Float[np.ndarray, " shells"]
    """Variance of residuals of whole images."""


class NoiseSums(eqx.Module):
    """Sums over images that every estimate of the noise is made from; half-complex powers."""

    count: Float[np.ndarray, "1"]
    """Number of images."""
    power: Float[np.ndarray, "y half_x"]
    """Images."""
    residual: Float[np.ndarray, "y half_x"]
    """Images without the mean."""
    outside: Float[np.ndarray, "y half_x"]
    """Images outside their masks."""
    residual_outside: Float[np.ndarray, "y half_x"]
    """Images without the mean, outside their masks."""
    residual_inside: Float[np.ndarray, "y half_x"]
    """Images without the mean, inside their masks."""
    outside_mask: Float[np.ndarray, "y half_x"]
    """The complements of the masks."""
    inside_mask: Float[np.ndarray, "y half_x"]
    """The masks."""
    bound: tuple[Inexact[Array | np.ndarray, "voxels 1"], Inexact[Array | np.ndarray, "voxels 1"]]
    """Squared residuals backprojected to a ball without oversampling, and their weights."""


class PowerSums(eqx.Module):
    """Power of images, summed."""

    count: Float[np.ndarray, "1"]
    """Number of images."""
    power: Float[np.ndarray, " shells"]
    """Sum over the pixels of every shell."""


def disc_shell_sums(
    values: Float[np.ndarray, "images pixels"], disc: Disc
) -> Float[np.ndarray, " shells"]:
    """Sum over images and over the pixels of every shell, in float64.

    Divide by the number of images times `np.bincount(disc.shells)` for the mean.
    """
    starts = np.searchsorted(disc.shells, np.arange(disc.radius + 1))
    return np.add.reduceat(values.sum(0, dtype=np.float64), starts)


def estimate_power(
    images: Images, size: int, executor: LocalExecutor, checkpoint: Checkpoint | None = None
) -> Float[np.ndarray, " shells"]:
    """Average the power of images over shells: noise and signal together.

    Good enough as the noise of a first mean, which hardly depends on it.

    Args:
        images: All images, or some.
        size: Side of the images in pixels.
        executor: Who runs the pass.
        checkpoint: Where to keep partial sums.
    """
    disc = Disc(size, size // 2 - 1)
    sums = executor.accumulate("Power spectrum", power_statistic(disc), images, checkpoint)
    return sums.power / (max(float(sums.count[0]), 1) * np.bincount(disc.shells))


def power_statistic(disc: Disc) -> Statistic[PowerSums]:
    """Sum the power of images on the shells of a disc."""

    def add(sums: PowerSums, batch: ImageBatch) -> PowerSums:
        power = disc_shell_sums(np.abs(batch.at_radius(disc.size, disc.radius).values) ** 2, disc)
        return PowerSums(sums.count + len(batch), sums.power + power)

    return Statistic(lambda: PowerSums(np.zeros(1), np.zeros(disc.radius + 1)), add)


def white_level(power: Float[np.ndarray, " shells"]) -> float:
    """Guess the variance of white noise from the power of images before a mean is known.

    It is the median over the upper half of the shells, where there is hardly any signal; only
    colour of the noise can mislead it.
    """
    return float(np.median(power[len(power) // 2 :]))


def estimate_noise(
    images: Images,
    mean: Float[np.ndarray, "z y x"],
    mask: Float[np.ndarray, "z y x"],
    executor: LocalExecutor,
    contrast: Float[np.ndarray, " images"] | None = None,
    method: NoiseMethod = "residual",
    model: NoiseModel = "radial",
    checkpoint: Checkpoint | None = None,
) -> Noise:
    """Measure the noise of images, in one pass.

    Some thousand images give it to a percent: pass a selection of a large data set.

    Args:
        images: All images, or some.
        mean: Map of the molecule, on the scale of the images; preferably regularized.
        mask: Generous soft mask around the molecule (`SolventMask.dilated`).
        executor: Who runs the pass.
        contrast: Factor on every image's signal, by row. None means 1.
        method: Where noise is measured.
        model: `white` replaces the profile by its median.
        checkpoint: Where to keep partial sums.
    """
    statistic = noise_statistic(
        mean, mask, executor.operators, contrast, bounded=method == "published"
    )
    sums = executor.accumulate("Noise", statistic, images, checkpoint)
    return finish_noise(sums, method, model)


def estimate_group_noise(
    images: Images,
    group: Int[np.ndarray, " images"],
    mean: Float[np.ndarray, "z y x"],
    mask: Float[np.ndarray, "z y x"],
    executor: LocalExecutor,
    method: NoiseMethod = "residual",
    model: NoiseModel = "radial",
    checkpoint: Checkpoint | None = None,
) -> list[Noise]:
    """Measure the noise of several groups of images, in one pass.

    Args:
        images: All images, or some.
        group: Group of every image, by row, from 0.
        mean: As `estimate_noise` takes it, and so are the others.
        mask: Generous soft mask around the molecule.
        executor: Who runs the pass.
        method: Where noise is measured.
        model: `white` replaces each profile by its median.
        checkpoint: Where to keep partial sums.

    Returns:
        The noise of each group that has images here.
    """
    each = noise_statistic(mean, mask, executor.operators, bounded=method == "published")
    sums = executor.accumulate("Noise of groups", apart(each, group), images, checkpoint)
    return [finish_noise(part, method, model) for part in sums if part.count[0] > 0]


def noise_statistic(
    mean: Float[np.ndarray, "z y x"],
    mask: Float[np.ndarray, "z y x"],
    operators: Operators,
    contrast: Float[np.ndarray, " images"] | None = None,
    *,
    bounded: bool = False,
) -> Statistic[NoiseSums]:
    """Sum the powers of images and of residuals, inside and outside the projected mask.

    Args:
        mean: Map of the molecule, on the scale of the images. What it shows outside the mask is
            noise of these images, and is not subtracted.
        mask: Generous soft mask around the molecule.
        operators: Implementation of slicing.
        contrast: Factor on every image's signal, by row. None means 1.
        bounded: Also make the backprojections that the method `published` needs.
    """
    size = mean.shape[-1]
    disc, ball = Disc(size, size // 2 - 1), Ball(size, size // 2 - 1)
    coarse = Ball(size, size // 2 - 1, 1)
    volume, projector = to_ball(mean * mask, ball)[:, None], project_mask(mask)

    def zeros() -> NoiseSums:
        plane = np.zeros((size, size // 2 + 1))
        voxels = len(coarse) if bounded else 0
        bound = np.zeros((voxels, 1), np.float32), np.zeros((voxels, 1), np.float32)
        return NoiseSums(np.zeros(1), plane, plane, plane, plane, plane, plane, plane, bound)

    def add(sums: NoiseSums, batch: ImageBatch) -> NoiseSums:
        batch = batch.at_radius(disc.size, disc.radius)
        slices = np.asarray(operators.slice_volumes(volume, batch.rotations, disc, ball))[..., 0]
        transfer = (
            batch.transfer if contrast is None else batch.transfer * contrast[batch.rows, None]
        )
        residual = batch.values - (transfer * slices).astype(np.complex64)
        masks = projector.image_masks(batch.rotations, operators.slice_volumes, _SOFTNESS)
        images = fourier.to_volume(disc.to_spectra(batch.values), dimensions=2)
        rest = fourier.to_volume(disc.to_spectra(residual), dimensions=2)
        return NoiseSums(
            sums.count + len(batch),
            sums.power + _power(disc.to_spectra(batch.values)),
            sums.residual + _power(disc.to_spectra(residual)),
            sums.outside + _masked_power(images, 1 - masks),
            sums.residual_outside + _masked_power(rest, 1 - masks),
            sums.residual_inside + _masked_power(rest, masks),
            sums.outside_mask + _masked_power(1 - masks),
            sums.inside_mask + _masked_power(masks),
            _add_bound(sums.bound, residual, batch) if bounded else sums.bound,
        )

    def _add_bound(bound: tuple, residual: np.ndarray, batch: ImageBatch) -> tuple:
        one = np.ones((len(batch), 1), np.float32)
        power = (np.abs(residual) ** 2).astype(np.float32)
        rest = one, batch.rotations, disc, coarse
        return (
            operators.backproject(bound[0], power, *rest),
            operators.backproject(bound[1], np.ones_like(power), *rest),
        )

    return Statistic(zeros, add)


def finish_noise(
    sums: NoiseSums, method: NoiseMethod = "residual", model: NoiseModel = "radial"
) -> Noise:
    """Turn complete sums into a profile; see `NoiseMethod`."""
    size = sums.power.shape[0]
    count = max(float(sums.count[0]), 1)
    power, whole = (disc_average(p / count) for p in (sums.power, sums.residual))
    inside = deconvolve(sums.residual_inside, sums.inside_mask)
    outside = deconvolve(sums.residual_outside, sums.outside_mask)
    plain = deconvolve(sums.outside, sums.outside_mask)
    if method in ("outside", "masked"):
        area = max(_correlations(sums.outside_mask)[0, 0], np.finfo(np.float64).tiny)
        blurred = disc_average(sums.outside) * size**2 / area
        variance = plain if method == "outside" else blurred
    elif method == "published":
        variance = np.minimum(plain, inside)
    elif method == "residual" and _spans_all_lags(sums):
        variance = np.where(inside < 0.9 * outside, inside, outside)
    else:
        variance = inside if method == "inside" else whole
        if method == "residual":
            logger.info("Masks leave too little of the images; noise is that of whole residuals.")
    variance = np.where(variance > 0, variance, power / 10)
    if method == "published":
        variance = np.minimum(variance, _signal_bound(sums, size))
    if model == "white":
        variance = np.full_like(variance, np.median(variance))
    return Noise(variance, power, outside, inside, whole)


def residual_noise(
    squares: Float[np.ndarray, " shells"],
    counts: Float[np.ndarray, " shells"],
    posterior: Float[np.ndarray, " shells"],
    previous: Float[np.ndarray, " all_shells"],
) -> Float[np.ndarray, " all_shells"]:
    """Update the noise from the residuals of a model with latent variables, one step of EM.

    Args:
        squares: Σ |image − contrast · transfer · slice(mean + U z)|² at the posterior mean of z.
        counts: Number of terms in every sum.
        posterior: Σ trace of (contrast · transfer)² · slice(U) cov(z) slice(U)*: what the posterior
            mean leaves out.
        previous: Profile that is kept on shells without terms.

    Example:
        >>> residual_noise(np.array([2.0]), np.array([4.0]), np.array([2.0]), np.array([9.0, 9.0]))
        array([1., 9.])
    """
    found = np.flatnonzero(counts > 0)
    updated = previous.astype(np.float64)
    updated[found] = (squares[found] + posterior[found]) / counts[found]
    return updated


def masked_noise_power(
    noise: Float[np.ndarray, " shells"], masks: Float[np.ndarray, "images y x"]
) -> Float[np.ndarray, "images y half_x"]:
    """Predict the expected power of noise that is multiplied by masks.

    It is the noise's power on the disc |k| ≤ size/2 − 1, convolved with the power of the mask.
    """
    size = masks.shape[-1]
    radii = image_radii(size)
    profile = expand_shells(noise, radii) * (radii <= size // 2 - 1)
    blur = _correlations(np.abs(fourier.to_spectrum(masks, dimensions=2)) ** 2)
    return np.real(np.asarray(scipy.fft.rfft2(blur * _correlations(profile)))) / size**2


def deconvolve(
    power: Float[np.ndarray, "y half_x"], mask_power: Float[np.ndarray, "y half_x"]
) -> Float[np.ndarray, " shells"]:
    """Recover the noise's profile from the summed power of masked noise.

    In the domain of autocorrelations the convolution with the mask's power is a product. Lags that
    the masks do not span are taken to be uncorrelated.

    Source: the published method weighs images by least squares; plain sums over images have the
    same expectation and need two transforms fewer per image.
    """
    size = power.shape[0]
    product, spans = _correlations(power), _correlations(mask_power)
    ridge = (1e-2 * spans[0, 0]) ** 2
    quotient = product * spans / np.maximum(spans**2 + ridge, np.finfo(np.float64).tiny)
    return disc_average(np.real(np.asarray(scipy.fft.rfft2(quotient)))) * size**2


def disc_average(power: Float[np.ndarray, "y half_x"]) -> Float[np.ndarray, " shells"]:
    """Average a half-complex power over the shells of the disc |k| ≤ size/2 − 1."""
    size = power.shape[0]
    radii = image_radii(size)
    shells = np.rint(radii).astype(np.int64)
    weights = half_weights(size) * (radii <= size // 2 - 1)
    sums, counts = (shell_sums(part, shells, weights) for part in (power, np.ones(radii.shape)))
    return sums[: size // 2] / counts[: size // 2]


def _spans_all_lags(sums: NoiseSums) -> bool:
    spans, pixels = _correlations(sums.outside_mask), sums.power.shape[0] ** 2
    enough = spans[0, 0] >= _LEAST_OUTSIDE * float(sums.count[0]) * pixels
    return bool(enough and spans.min() >= _LEAST_SPAN * spans[0, 0])


def _signal_bound(sums: NoiseSums, size: int) -> Float[np.ndarray, " shells"]:
    """Take the 5th percentile over each low shell of the volume of the residual power."""
    ball = Ball(size, size // 2 - 1, 1)
    power, weights = (ball.fold(np.asarray(part))[:, 0] for part in sums.bound)
    ratio = np.divide(power, weights, out=np.zeros_like(power), where=weights > 0)
    shells = np.where(weights > 0, np.rint(ball.radii), -1)
    bound = np.full(size // 2, np.inf)
    for shell in range(min(32, size // 2 - 1)):
        if (shells == shell).any():
            bound[shell] = max(0.0, np.percentile(ratio[shells == shell], 5))
    return bound


def _correlations(power: Float[np.ndarray, "*images y half_x"]) -> Float[np.ndarray, "*images y x"]:
    size = power.shape[-2]
    return np.asarray(scipy.fft.irfft2(power.astype(np.float64), s=(size, size), workers=-1))


def _masked_power(
    images: Float[np.ndarray, "images y x"], masks: Float[np.ndarray, "images y x"] | None = None
) -> Float[np.ndarray, "y half_x"]:
    masked = images if masks is None else images * masks
    return _power(fourier.to_spectrum(masked, dimensions=2))


def _power(spectra: Inexact[np.ndarray, "images y half_x"]) -> Float[np.ndarray, "y half_x"]:
    return (np.abs(spectra) ** 2).sum(0, dtype=np.float64)
