"""How much noise each image has, as a factor on the spectrum that it shares with others.

Thickness of the ice, dose and normalization differ from image to image, and so does the noise. It
is measured on what is left of an image without the mean, at frequencies where noise dominates.
"""

from dataclasses import dataclass

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from recovar.compute.accumulate import Images
from recovar.compute.executors import LocalExecutor
from recovar.core.batch import ImageBatch
from recovar.core.frequencies import Ball, Disc
from recovar.core.noise_spectra import NoiseSpectra
from recovar.core.volumes import to_ball
from recovar.noise import Noise

_QUIET = 1.05
"""Most power that whole residuals may have over noise where noise dominates."""
_FEWEST = 4
"""One in so many of the shells looked at is used, whatever lies there."""
_MOST = 10.0
"""Factor by which the noise of an image may differ from that of the one in the middle."""
_LEAST_SPREAD = 0.02
"""Of scales, below which they do not matter."""
_DEVIATIONS = 4.0
"""By which the spread must exceed what chance makes of equal noise."""


@dataclass(frozen=True)
class NoiseScales:
    """The scale of every image's noise, and what speaks for there being any."""

    scale: Float32[np.ndarray, " images"]
    """Factor on variances, drawn towards 1 where chance may have made it; 1 on average in every
    group."""
    observed: float
    """Relative standard deviation of the scales as measured."""
    chance: float
    """What it would be if all images of a group had the same noise."""

    @property
    def spread(self) -> float:
        """Relative standard deviation of the true scales, as far as can be told."""
        return float(np.sqrt(max(self.observed**2 - self.chance**2, 0.0)))

    @property
    def differ(self) -> bool:
        """Whether scales differ, by more than chance and enough to matter."""
        error = self.chance**2 * np.sqrt(2 / len(self.scale))
        return self.spread > max(_LEAST_SPREAD, float(np.sqrt(_DEVIATIONS * error)))


class _Power(eqx.Module):
    ratio: Float32[np.ndarray, " images"]


def quiet_shells(noise: Noise) -> Bool[np.ndarray, " shells"]:
    """Choose the shells of the upper half where residuals of whole images are noise.

    If they are few, those are taken where the rest is least.
    """
    shells = len(noise.variance)
    excess = np.full(shells, np.inf)
    upper = slice(shells // 2, None)
    excess[upper] = noise.whole[upper] / noise.variance[upper]
    limit = np.sort(excess)[max(shells // 2 // _FEWEST, 1) - 1]
    return excess <= max(limit, _QUIET)


def estimate_noise_scales(
    images: Images,
    mean: Float[np.ndarray, "z y x"],
    spectra: NoiseSpectra,
    quiet: Bool[np.ndarray, " shells"],
    executor: LocalExecutor,
) -> NoiseScales:
    """Measure the noise of every image, in one pass.

    Args:
        images: All images.
        mean: Map of the molecule, on the scale of the images and without solvent.
        spectra: Noise of the groups of images.
        quiet: Shells to measure on, where noise dominates.
        executor: Who runs the pass.
    """
    size, last = mean.shape[-1], int(np.flatnonzero(quiet)[-1])
    ball = Ball(size, min(last, size // 2 - 1))
    disc = Disc(size, ball.radius)
    volume = to_ball(mean, ball)[:, None]
    pixels = np.flatnonzero(quiet[disc.shells])

    def measure(batch: ImageBatch) -> _Power:
        batch = batch.at_radius(size, ball.radius).whitened(spectra)
        slices = executor.operators.slice_volumes(volume, batch.rotations, batch.disc, ball)
        rest = batch.values - batch.transfer * np.asarray(slices)[..., 0]
        return _Power((np.abs(rest[:, pixels]) ** 2).mean(1).astype(np.float32))

    ratios = executor.map_images("Noise of every image", measure, images).ratio
    return shrink_scales(ratios, len(pixels), spectra.group)


def shrink_scales(
    ratios: Float[np.ndarray, " images"], pixels: int, group: Int[np.ndarray, " images"]
) -> NoiseScales:
    """Draw measured powers towards that of their group, as far as chance explains the difference.

    The mean power of n complex pixels of noise has a relative variance of 1/n. What logarithms
    scatter beyond it is the variance of true scales, and shares of both say how far to trust one.

    Args:
        ratios: Mean power of every image over that of its group's noise.
        pixels: Complex pixels in each mean.
        group: Group of every image.
    """
    logs = np.zeros(len(ratios))
    for number in np.unique(group):
        members = group == number
        middle = np.median(ratios[members])
        logs[members] = np.log(np.clip(ratios[members] / middle, 1 / _MOST, _MOST))
        logs[members] -= logs[members].mean()
    observed, chance = float(logs.std()), 1 / np.sqrt(pixels)
    trust = max(0.0, 1 - chance**2 / max(observed**2, 1e-30))
    scale = np.exp(trust * logs)
    for number in np.unique(group):
        scale[group == number] /= scale[group == number].mean()
    return NoiseScales(scale.astype(np.float32), observed, float(chance))
