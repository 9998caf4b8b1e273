"""Volumes at latent points, by kernel regression over the images around them.

All points, all bandwidths and both half sets share one pass. Images off the point are moved to it
along the principal components before they are averaged (local-linear regression), so that a wide
kernel, with little noise, need not blur the motion that the components describe.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Complex, Float

from recovar.compute.accumulate import Images, Statistic
from recovar.compute.executors import Checkpoint, LocalExecutor
from recovar.core.batch import ImageBatch
from recovar.core.frequencies import Ball
from recovar.core.halves import Halves
from recovar.core.noise_spectra import ImageNoise
from recovar.core.slicing import Operators
from recovar.core.volumes import to_ball
from recovar.homogeneous import FoldedSums, correlate
from recovar.latent_weights import KernelWeights
from recovar.local_shrinkage import Mixed, mix_levels

Array = np.ndarray | jax.Array


@dataclass(frozen=True)
class LinearModel:
    """How volumes depend on the coordinates to first order, for each half set by itself."""

    halves: Halves[Float[np.ndarray, "pcs z y x"]]
    """Components that belong to the first coordinates, freed of noise."""
    whole: Float[np.ndarray, "pcs z y x"]
    """The same, of all images."""

    @property
    def pcs(self) -> int:
        """Count the components."""
        return len(self.whole)

    def at(
        self, coordinates: Float[np.ndarray, " zdim"], volumes: Float[np.ndarray, "pcs z y x"]
    ) -> Float[np.ndarray, "z y x"]:
        """Compute what components of half sets or all images add at a point."""
        return np.tensordot(coordinates[: self.pcs].astype(np.float32), volumes, 1)


class LevelSums(eqx.Module):
    """Sums of one half set at one bandwidth, one channel per point."""

    values: Complex[Array, "voxels states"]
    """Images, moved to the point, times transfer function over noise."""
    weights: Float[Array, "voxels states"]
    """Squared transfer functions over noise."""


class RegressionSums(eqx.Module):
    """Sums of both half sets at all bandwidths; the last one is of all images alike."""

    first: tuple[LevelSums, ...]
    second: tuple[LevelSums, ...]


@dataclass(frozen=True)
class Regression:
    """What is to be summed."""

    ball: Ball
    """Where sums lie; sets the frequencies that are used."""
    noise: ImageNoise
    """Of every image."""
    contrast: Float[np.ndarray, " images"]
    """Factor on every image's signal, by row."""
    coordinates: Float[np.ndarray, "images zdim"]
    """Posterior means."""
    kernel: KernelWeights
    """Of the points."""
    model: LinearModel
    operators: Operators
    """Implementation of slicing and backprojection."""

    def statistic(self) -> Statistic[RegressionSums]:
        """Sum what all images say about all points."""
        spectra = self.model.halves.map(self._spectra)
        states, levels = self.kernel.weights.shape[1:]

        def zeros() -> RegressionSums:
            def half() -> tuple[LevelSums, ...]:
                return tuple(
                    LevelSums(
                        np.zeros((len(self.ball), channels), np.complex64),
                        np.zeros((len(self.ball), channels), np.float32),
                    )
                    for channels in (*[states] * levels, 1)
                )

            return RegressionSums(half(), half())

        def add(sums: RegressionSums, batch: ImageBatch) -> RegressionSums:
            batch = batch.at_radius(self.ball.size, self.ball.radius).whitened(self.noise)
            parts = []
            for half, (known, components) in enumerate(
                zip((sums.first, sums.second), spectra, strict=True)
            ):
                members = np.flatnonzero(batch.halves == half)
                chosen = batch.select(members)
                parts.append(self._add(known, chosen, components) if len(members) else known)
            return RegressionSums(*parts)

        return Statistic(zeros, add)

    def _spectra(
        self, volumes: Float[np.ndarray, "pcs z y x"]
    ) -> Complex[np.ndarray, "voxels pcs"] | None:
        if not len(volumes):
            return None
        return np.stack([to_ball(volume, self.ball) for volume in volumes], axis=1)

    def _add(
        self,
        known: tuple[LevelSums, ...],
        batch: ImageBatch,
        components: Complex[np.ndarray, "voxels pcs"] | None,
    ) -> tuple[LevelSums, ...]:
        pcs, rows = self.model.pcs, batch.rows
        weights = self.kernel.weights[rows]
        ones = np.ones((len(batch), 1), np.float32)
        shares = [*(weights[..., level] for level in range(weights.shape[2])), ones]
        moves = np.concatenate(
            [self.kernel.means[rows][..., :pcs], self.coordinates[rows, None, :pcs]], axis=1
        ).astype(np.float32)
        transfer = (batch.transfer * self.contrast[rows, None]).astype(np.float32)
        power = transfer**2
        shown = None
        if components is not None:
            slices = self.operators.slice_volumes(
                components, batch.rotations, batch.disc, self.ball
            )
            shown = np.asarray(slices) @ moves.transpose(0, 2, 1)
        added = []
        for level, (sums, share) in enumerate(zip(known, shares, strict=True)):
            values = transfer * batch.values
            if shown is not None:
                values = values - power * shown[..., level]
            share = np.ascontiguousarray(share, np.float32)
            found = self.operators.backproject_many(
                (sums.values, sums.weights),
                (values, power),
                (share, share),
                batch.rotations,
                batch.disc,
                self.ball,
            )
            added.append(LevelSums(*found))
        return tuple(added)


def regress(
    images: Images,
    regression: Regression,
    executor: LocalExecutor,
    checkpoint: Checkpoint | None = None,
) -> RegressionSums:
    """Sum over all images, in one pass.

    Args:
        images: All images.
        regression: What to sum.
        executor: Who runs the pass.
        checkpoint: Where to keep partial sums.
    """
    return executor.accumulate("States", regression.statistic(), images, checkpoint)


def finish_states(
    sums: RegressionSums,
    regression: Regression,
    points: Float[np.ndarray, "states zdim"],
    mask: Float[np.ndarray, "z y x"],
    heterogeneity: Float[np.ndarray, "z y x"] | None = None,
) -> Iterator[Mixed]:
    """Turn complete sums into volumes, one point after the other.

    Args:
        sums: Complete; to save memory they may be changed.
        regression: What was summed.
        points: The latent points.
        mask: Solvent mask; the best guess is 0 outside.
        heterogeneity: Where molecules differ, 0 to 1: states may differ from the linear model only
            there.
    """
    where = mask if heterogeneity is None else mask * heterogeneity
    model, shifts = regression.model, regression.kernel.shifts
    centre = _fold(sums, -1, 0, regression.ball)
    centre_halves = centre.halves()
    prior = centre.prior(correlate(centre_halves.map(lambda half: half * mask)))
    centre_volume = centre.volume(prior) * mask
    shares = _shares_of_halves(sums)
    for state, point in enumerate(points):
        linear = _moved(centre_halves, model, point)
        levels = [
            _moved(_fold(sums, level, state, regression.ball).halves(), model, shifts[state, level])
            for level in range(shifts.shape[1])
        ]
        base = centre_volume + mask * model.at(point, model.whole)
        yield mix_levels([*levels, linear], base, where, shares)


def _moved(
    halves: Halves[Float[np.ndarray, "z y x"]],
    model: LinearModel,
    by: Float[np.ndarray, " zdim"],
) -> Halves[Float[np.ndarray, "z y x"]]:
    """Move half-maps along the components of the same half sets."""
    moved = (
        half + model.at(by, components)
        for half, components in zip(halves, model.halves, strict=True)
    )
    return Halves(*moved)


def _fold(sums: RegressionSums, level: int, state: int, ball: Ball) -> FoldedSums:
    """Complete the sums of both half sets of one point."""
    parts = sums.first[level], sums.second[level]
    values, weights = (
        np.stack([ball.fold(np.array(column)) for column in columns], axis=1)
        for columns in (
            [np.asarray(part.values)[:, state] for part in parts],
            [np.asarray(part.weights)[:, state] for part in parts],
        )
    )
    return FoldedSums(values, weights, ball)


def _shares_of_halves(sums: RegressionSums) -> tuple[float, float]:
    """Compare what both half sets know."""
    first, second = (
        float(np.sum(np.asarray(half[-1].weights), dtype=np.float64))
        for half in (sums.first, sums.second)
    )
    total = max(first + second, np.finfo(np.float64).tiny)
    return first / total, second / total


def bytes_of_regression(ball: Ball, states: int, levels: int) -> int:
    """Predict the memory of the sums over all images for so many points."""
    return 2 * 12 * len(ball) * (states * levels + 1)
