"""What one image adds to the covariance: its residual, its mask, and the noise in its products.

Images are whitened before they are masked, so that the noise between two pixels of a masked image
depends on their difference only, exactly and for any noise spectrum.
"""

from dataclasses import dataclass

import equinox as eqx
import numpy as np
from jaxtyping import Complex, Float, Int

from recovar.compute.accumulate import Images
from recovar.compute.executors import LocalExecutor
from recovar.core import fourier
from recovar.core.batch import ImageBatch
from recovar.core.frequencies import Ball, Disc
from recovar.core.grid import Grid
from recovar.core.masks import MaskProjector, project_mask
from recovar.core.noise_spectra import ImageNoise
from recovar.core.slicing import Operators
from recovar.core.volumes import to_ball

NOISE_WINDOW = 10
"""Reach, in Fourier pixels, of the noise that a mask spreads from one pixel to others."""


@dataclass(frozen=True)
class Centring:
    """What is taken away from images before their covariance is estimated."""

    noise: ImageNoise
    """Of every image; one value means white noise."""
    contrast: Float[np.ndarray, " images"] | None
    """Factor on every image's signal, by row; None means 1."""
    mean: Complex[np.ndarray, "voxels 1"]
    """Mean volume on `ball`, ready to be sliced."""
    ball: Ball
    """Where the coefficients of the mean lie."""
    masks: MaskProjector | None
    """Makes the masks of the centred images; None leaves them whole."""


def centre_on(
    mean: Float[np.ndarray, "z y x"],
    noise: ImageNoise,
    radius: int,
    contrast: Float[np.ndarray, " images"] | None = None,
    mask: Float[np.ndarray, "z y x"] | None = None,
) -> Centring:
    """Prepare the subtraction of the mean.

    Args:
        mean: Mean volume; the regularized one is the better guess.
        noise: Of every image.
        radius: Largest |k| that will be asked for.
        contrast: Factor on every image's signal, by row. None means 1.
        mask: Soft volume mask, wide enough to hold the molecule in every conformation; its
            projections multiply the residual images. None leaves them whole.
    """
    grid = Grid(mean.shape[-1], 1.0)
    far = min(radius + (0 if mask is None else NOISE_WINDOW), grid.largest_radius)
    ball = Ball(grid.size, far)
    masks = None
    if mask is not None:
        small = grid.at_radius(far).size
        spectrum = fourier.crop_spectrum(fourier.to_spectrum(mask), small)
        masks = project_mask(fourier.to_volume(spectrum) * (small / grid.size) ** 3)
    return Centring(noise, contrast, to_ball(mean, ball)[:, None], ball, masks)


class Residuals(eqx.Module):
    """Whitened images less their mean, times their transfer function."""

    disc: Disc = eqx.field(static=True)
    """Pixels of `values` and `transfer`."""
    values: Complex[np.ndarray, "images pixels"]
    """f = C · mask(y − C · slice(mean)), where C and y are whitened."""
    transfer: Float[np.ndarray, "images pixels"]
    """C: transfer function times contrast, whitened."""
    spread: Complex[np.ndarray, "images dy dx"]
    """Noise covariance between two pixels by their difference, (0, 0) in the middle."""
    rotations: Float[np.ndarray, "images 3 3"]
    """Rows are the image axes in the frame of the molecule."""
    halves: Int[np.ndarray, " images"]
    """Half set of every image."""


def compute_residuals(
    batch: ImageBatch, centring: Centring, radius: int, operators: Operators
) -> Residuals:
    """Subtract the mean from images, mask them, and multiply by the transfer function.

    Args:
        batch: Images, not whitened.
        centring: Mean, noise, contrast and masks.
        radius: Largest |k| wanted.
        operators: How to slice.
    """
    ball = centring.ball
    batch = batch.at_radius(ball.size, ball.radius).whitened(centring.noise)
    transfer = batch.transfer
    if centring.contrast is not None:
        transfer = transfer * centring.contrast[batch.rows, None].astype(np.float32)
    slices = operators.slice_volumes(centring.mean, batch.rotations, batch.disc, ball)
    residual = batch.values - transfer * np.asarray(slices)[..., 0]
    spread = np.ones((len(batch), 1, 1), np.complex64)
    if centring.masks:
        masks = centring.masks.image_masks(batch.rotations, operators.slice_volumes, windowed=True)
        residual, spread = _apply_masks(residual, batch.disc, masks)
    disc = Disc(ball.size, radius)
    count = len(disc)
    return Residuals(
        disc,
        transfer[:, :count] * residual[:, :count],
        transfer[:, :count],
        spread,
        batch.rotations,
        batch.halves,
    )


def _apply_masks(
    residual: Complex[np.ndarray, "images pixels"],
    disc: Disc,
    masks: Float[np.ndarray, "images y x"],
) -> tuple[Complex[np.ndarray, "images pixels"], Complex[np.ndarray, "images dy dx"]]:
    """Multiply images by their masks; also give the noise covariance between two pixels."""
    size = masks.shape[-1]
    disc = Disc(size, disc.radius)
    images = fourier.to_volume(disc.to_spectra(residual), dimensions=2)
    masked = disc.from_spectra(fourier.to_spectrum(images * masks, dimensions=2))
    reach = min(NOISE_WINDOW, size // 2 - 1)
    spectrum = fourier.to_spectrum(masks**2, dimensions=2) / size**2
    lines = np.arange(-reach, reach + 1)
    right = spectrum[:, lines % size, : reach + 1]
    spread = np.concatenate([right[:, ::-1, :0:-1].conj(), right], axis=2)
    return masked.astype(np.complex64), spread.astype(np.complex64)


class ContrastEvidence(eqx.Module):
    """How each image compares with its projection of the mean."""

    match: Float[np.ndarray, " images"]
    """⟨y, C·slice(mean)⟩ of the whitened image."""
    power: Float[np.ndarray, " images"]
    """‖C·slice(mean)‖²."""


def estimate_contrast(
    images: Images, centring: Centring, executor: LocalExecutor
) -> Float[np.ndarray, " images"]:
    """Estimate every image's contrast from its match with the mean alone, in one pass.

    Args:
        images: The images.
        centring: Mean and noise, at the radius to compare; contrast and masks are not used.
        executor: Who runs the pass.
    """
    ball = centring.ball

    def compare(batch: ImageBatch) -> ContrastEvidence:
        batch = batch.at_radius(ball.size, ball.radius).whitened(centring.noise)
        slices = executor.operators.slice_volumes(centring.mean, batch.rotations, batch.disc, ball)
        projected = batch.transfer * np.asarray(slices)[..., 0]
        weights = batch.disc.multiplicity
        return ContrastEvidence(
            np.real(projected.conj() * batch.values) @ weights, np.abs(projected) ** 2 @ weights
        )

    return shrink_contrast(executor.map_images("Contrast", compare, images))


def shrink_contrast(evidence: ContrastEvidence) -> Float[np.ndarray, " images"]:
    """Turn matches with the mean into contrasts that average 1, drawn towards 1 where noisy.

    a = (e + a₀/s²) / (f + 1/s²) is the most probable contrast where a ~ N(a₀, s²) and an image
    shows the mean and noise only. The spread s is the one that explains the scatter of e/f.
    """
    match, power = evidence.match.astype(np.float64), evidence.power.astype(np.float64)
    typical = match.sum() / power.sum()
    excess = np.average((match / power - typical) ** 2 - 1 / power, weights=power)
    variance = max(float(excess), 1e-4)
    contrasts = (match + typical / variance) / (power + 1 / variance)
    return contrasts / contrasts.mean()
