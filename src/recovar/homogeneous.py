"""Maps from images: the mean, and many weighted means in one pass, always with half-maps."""

from collections.abc import Iterator
from dataclasses import dataclass

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Complex, Float

from recovar.compute.accumulate import Images, Statistic
from recovar.compute.executors import Checkpoint, LocalExecutor
from recovar.core import fourier
from recovar.core.batch import ImageBatch
from recovar.core.frequencies import Ball
from recovar.core.grid import Grid
from recovar.core.halves import Halves
from recovar.core.masks import window_volume
from recovar.core.noise_spectra import ImageNoise
from recovar.core.slicing import Operators
from recovar.core.volumes import from_ball
from recovar.errors import InputError
from recovar.regularization import fsc, shell_prior, wiener


class MeanSums(eqx.Module):
    """Sums for several weighted means; channels are all first halves, then all second ones."""

    values: Complex[np.ndarray | jax.Array, "voxels channels"]
    """Images times transfer function over noise."""
    weights: Float[np.ndarray | jax.Array, "voxels channels"]
    """Squared transfer functions over noise."""


@dataclass(frozen=True)
class Mean:
    """A map with everything needed to judge it."""

    halves: Halves[Float[np.ndarray, "z y x"]]
    """Independent least-squares maps of the two half sets."""
    regularized_halves: Halves[Float[np.ndarray, "z y x"]]
    """The same, each shrunk by `prior`."""
    volume: Float[np.ndarray, "z y x"]
    """Least-squares map of all images."""
    regularized: Float[np.ndarray, "z y x"]
    """Map of all images, shrunk by `prior`: the best guess."""
    fsc: Float[np.ndarray, " shells"]
    """Correlation of `halves`, masked if they are."""
    prior: Float[np.ndarray, " shells"]
    """Variance of the map's Fourier coefficients."""
    weights: Float[np.ndarray, "z y half_x"]
    """How much one half set knows of each coefficient: half of Σ transfer² / noise."""


def mean_statistic(
    noise: ImageNoise,
    ball: Ball,
    operators: Operators,
    contrast: Float[np.ndarray, " images"] | None = None,
    weights: Float[np.ndarray, "images states"] | None = None,
) -> Statistic[MeanSums]:
    """Sum what images say about one or several weighted means.

    Args:
        noise: Of every image; one value means white noise.
        ball: Where the sums lie; sets the frequencies that are used.
        operators: Implementation of the backprojection.
        contrast: Factor on every image's signal, by row. None means 1.
        weights: How much every image, by row, counts in every mean, at least 0. None is one mean
            of all images.
    """
    channels = 2 * (1 if weights is None else weights.shape[1])

    def zeros() -> MeanSums:
        shape = (len(ball), channels)
        return MeanSums(np.zeros(shape, np.complex64), np.zeros(shape, np.float32))

    def add(sums: MeanSums, batch: ImageBatch) -> MeanSums:
        batch = batch.at_radius(ball.size, ball.radius).whitened(noise)
        factor = np.float32(1) if contrast is None else contrast[batch.rows, None]
        transfer = (batch.transfer * factor).astype(np.float32)
        shares = np.ones((len(batch), 1)) if weights is None else weights[batch.rows]
        shares = np.hstack([shares * (batch.halves == half)[:, None] for half in (0, 1)])
        rest = shares.astype(np.float32), batch.rotations, batch.disc, ball
        return MeanSums(
            operators.backproject(sums.values, transfer * batch.values, *rest),
            operators.backproject(sums.weights, transfer**2, *rest),
        )

    return Statistic(zeros, add)


def estimate_mean(
    images: Images,
    grid: Grid,
    noise: ImageNoise,
    executor: LocalExecutor,
    contrast: Float[np.ndarray, " images"] | None = None,
    mask: Float[np.ndarray, "z y x"] | None = None,
    checkpoint: Checkpoint | None = None,
) -> Mean:
    """Reconstruct the mean of all images, in one pass.

    The sign is that of the images; see `density_is_inverted`.

    Args:
        images: All images.
        grid: Grid of the images and of the map.
        noise: Of every image; one value means white noise.
            A guess will do: a wrong profile costs the map hardly anything, and scales `weights`
            and `prior` inversely.
        executor: Who runs the pass.
        contrast: Factor on every image's signal, by row. None means 1.
        mask: Multiplies all maps, before they are correlated. The prior then knows that the signal
            is in the mask, and keeps more of it.
        checkpoint: Where to keep partial sums.
    """
    ball = Ball(grid.size, grid.largest_radius)
    statistic = mean_statistic(noise, ball, executor.operators, contrast)
    return finish_means(executor.accumulate("Mean", statistic, images, checkpoint), ball, mask)[0]


def get_multiple_conformations(
    images: Images,
    weights: Float[np.ndarray, "images states"],
    grid: Grid,
    noise: ImageNoise,
    executor: LocalExecutor,
    contrast: Float[np.ndarray, " images"] | None = None,
    mask: Float[np.ndarray, "z y x"] | None = None,
    checkpoint: Checkpoint | None = None,
) -> list[Mean]:
    """Reconstruct many weighted means in one pass.

    The sums take about 50 · size³ bytes per state; divide the states over several calls where that
    does not fit.

    Args:
        images: All images.
        weights: How much every image, by row, counts in every state; at least 0.
        grid: Grid of the images and of the maps.
        noise: Of every image; one value means white noise.
        executor: Who runs the pass.
        contrast: Factor on every image's signal, by row. None means 1.
        mask: Multiplies all maps, before they are correlated. The prior then knows that the signal
            is in the mask, and keeps more of it.
        checkpoint: Where to keep partial sums.

    Raises:
        InputError: If a weight is negative or not finite.
    """
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise InputError("Expected finite weights of at least 0 for every image and state.")
    ball = Ball(grid.size, grid.largest_radius)
    statistic = mean_statistic(noise, ball, executor.operators, contrast, weights)
    return finish_means(executor.accumulate("States", statistic, images, checkpoint), ball, mask)


@dataclass(frozen=True)
class FoldedSums:
    """Complete sums of one mean, and the maps that can be made of them, none of them masked."""

    values: Complex[np.ndarray, "voxels 2"]
    """Images times transfer function over noise, of both half sets."""
    weights: Float[np.ndarray, "voxels 2"]
    """Squared transfer functions over noise."""
    ball: Ball
    """Where both lie."""

    def halves(
        self, prior: Float[np.ndarray, " shells"] | None = None
    ) -> Halves[Float[np.ndarray, "z y x"]]:
        """Reconstruct both half sets; a prior shrinks them."""
        first, second = (
            _map(wiener(*half, self.ball, prior), self.ball)
            for half in zip(self.values.T, self.weights.T, strict=True)
        )
        return Halves(first, second)

    def volume(
        self, prior: Float[np.ndarray, " shells"] | None = None
    ) -> Float[np.ndarray, "z y x"]:
        """Reconstruct all images; a prior shrinks the map."""
        values = self.values[:, 0] + self.values[:, 1]
        filtered = wiener(values, self.total_weights, self.ball, prior)
        del values  # it is as large as all that follows
        return _map(filtered, self.ball)

    @property
    def total_weights(self) -> Float[np.ndarray, " voxels"]:
        """The weights of both half sets together."""
        return self.weights[:, 0] + self.weights[:, 1]

    def prior(self, curve: Float[np.ndarray, " shells"]) -> Float[np.ndarray, " shells"]:
        """Estimate the variance of the map's coefficients from the correlation of its halves."""
        return shell_prior(curve, 0.5 * self.total_weights, self.ball)


def _map(filtered: Complex[np.ndarray, " voxels"], ball: Ball) -> Float[np.ndarray, "z y x"]:
    return window_volume(from_ball(filtered, ball))


def fold_means(sums: MeanSums, ball: Ball) -> Iterator[FoldedSums]:
    """Complete the sums of one mean after the other; to save memory `sums` may be changed."""
    states = sums.values.shape[1] // 2
    for state in range(states):
        values, weights = (
            ball.fold(np.require(part[:, state::states], requirements=["C", "W"]), in_place=True)
            for part in (sums.values, sums.weights)
        )
        yield FoldedSums(values, weights, ball)


def correlate(halves: Halves[Float[np.ndarray, "z y x"]]) -> Float[np.ndarray, " shells"]:
    """Correlate two half-maps, shell by shell."""
    return fsc(*halves.map(fourier.to_spectrum))


def finish_means(
    sums: MeanSums, ball: Ball, mask: Float[np.ndarray, "z y x"] | None = None
) -> list[Mean]:
    """Turn complete sums into maps, which are multiplied by a mask if there is one.

    To save memory `sums` may be changed.
    """
    return [_finish(state, mask) for state in fold_means(sums, ball)]


def _finish(sums: FoldedSums, mask: Float[np.ndarray, "z y x"] | None) -> Mean:
    def masked(volume: Float[np.ndarray, "z y x"]) -> Float[np.ndarray, "z y x"]:
        return volume if mask is None else volume * mask

    halves = sums.halves().map(masked)
    curve = correlate(halves)
    prior = sums.prior(curve)
    return Mean(
        halves,
        sums.halves(prior).map(masked),
        masked(sums.volume()),
        masked(sums.volume(prior)),
        curve,
        prior,
        0.5 * weights_on_grid(sums.total_weights, sums.ball),
    )


def weights_on_grid(
    weights: Float[np.ndarray, " voxels"], ball: Ball
) -> Float[np.ndarray, "z y half_x"]:
    """Sum weights of an oversampled ball to the half-complex grid of the image.

    Every voxel is shared out linearly between the coefficients that surround it, so that the sum
    is kept. Only for an oversampling of 2.
    """
    size, half = ball.size, ball.size // 2
    total = np.zeros((size, size, half + 2), weights.dtype)  # the last column is at x = 1
    for plane in ball.planes():
        cells = np.zeros((2 * size, size + 2), weights.dtype)  # y from −size, x from 0
        block = cells[size - ball.reach : size + ball.reach + 1, : plane.held.shape[1]]
        block[plane.held] = weights[plane.part]
        lines = cells[::2] + 0.5 * (cells[1::2] + np.roll(cells[1::2], 1, axis=0))
        even, odd = lines[:, ::2], lines[:, 1::2]
        even[:, 1:] += 0.5 * odd[:, :-1]
        even += 0.5 * odd
        shared = np.concatenate([even, odd[:, :1]], axis=1)
        for z in (plane.z // 2, -(-plane.z // 2)):
            total[z % size] += 0.5 * shared
    total = np.fft.ifftshift(total, axes=1)
    total[..., 0] += 0.5 * np.roll(total[::-1, ::-1, -1], 1, axis=(0, 1))
    return total[..., :-1]


def density_is_inverted(volume: Float[np.ndarray, "z y x"]) -> bool:
    """Judge whether dense matter is negative in a map, so that the images' sign must be flipped.

    Dense matter is the long tail of the densities near the centre. They are measured from the mean
    density further out, for normalized images have an arbitrary zero.
    """
    size = volume.shape[-1]
    axis = (np.arange(size) - size // 2) ** 2
    radii = np.sqrt(axis[:, None, None] + axis[:, None] + axis)
    outside = (radii >= size / 3) & (radii < max(size / 2 - 3, size / 3 + 1))
    inside = volume[radii < size / 3].astype(np.float64) - volume[outside].mean(dtype=np.float64)
    return bool(np.sum(inside**3) < 0)
