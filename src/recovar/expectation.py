"""The expectation step: what images say of the volumes, given the current fit.

Latent coordinates and contrasts of every image are inferred from the current volumes, and their
moments backprojected. All results are sums over images.
"""

from collections.abc import Callable
from dataclasses import replace

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Complex, Float

from recovar.compute.accumulate import Statistic
from recovar.core.batch import ImageBatch
from recovar.core.frequencies import Ball
from recovar.core.slicing import Operators
from recovar.core.volumes import to_ball
from recovar.outliers import describe_stranger, log_odds_of_junk, probability_of_junk
from recovar.posterior import Latents, image_statistics, infer

FIRST_CONTRAST_SD = 0.2
"""Spread of contrasts that a cold start assumes."""


class Model(eqx.Module):
    """The current fit, on the grid of the current radius."""

    volumes: Float[np.ndarray, "channels z y x"]
    """Mean, then components with unit-variance coordinates, strongest first."""
    contrast_sd: float
    """Spread of the contrasts about 1; 0 where they are not fitted."""
    reliability: Float[np.ndarray, " pcs"]
    """Share of each coordinate's variance that the images determine."""

    @property
    def components(self) -> int:
        """Count the components."""
        return len(self.volumes) - 1


class LatentMoments(eqx.Module):
    """Sums over images that need no volumes."""

    power: Float[np.ndarray, "shells channels"]
    """Transfer² · E[a² z̃²] with z̃ = (1, z) over the whole plane, by shell."""
    explained: Float[np.ndarray, "pcs pcs"]
    """E[z] E[z]ᵀ."""
    unsure: Float[np.ndarray, "pcs pcs"]
    """Posterior covariances of z."""
    contrast: Float[np.ndarray, " 4"]
    """Images, contrasts, their squares, their posterior variances, all weighted."""


class Moments(eqx.Module):
    """Sums over images for the next fit. Pairs hold one array per half set."""

    curvature: tuple[
        Float[np.ndarray | jax.Array, "voxels pairs"],
        Float[np.ndarray | jax.Array, "voxels pairs"],
    ]
    """Transfer² · E[a² z̃ z̃ᵀ], upper triangle, backprojected."""
    response: tuple[
        Complex[np.ndarray | jax.Array, "voxels channels"],
        Complex[np.ndarray | jax.Array, "voxels channels"],
    ]
    """Transfer · image · E[a z̃], backprojected."""
    latents: LatentMoments


Inference = Callable[[ImageBatch], Latents]
"""Gives the latents of a whitened batch."""


def moments_statistic(
    inference: Inference, pcs: int, ball: Ball, operators: Operators
) -> Statistic[Moments]:
    """Sum second and first moments of the latents, backprojected, for the next fit.

    Args:
        inference: Gives the latents of a batch.
        pcs: Number of components.
        ball: Where the sums lie; may be a band of the ball.
        operators: Implementation of the backprojection.
    """
    upper = np.triu_indices(pcs + 1)

    def zeros() -> Moments:
        voxels, pairs = len(ball), len(upper[0])
        shape = (voxels, pcs + 1)
        return Moments(
            (np.zeros((voxels, pairs), np.float32), np.zeros((voxels, pairs), np.float32)),
            (np.zeros(shape, np.complex64), np.zeros(shape, np.complex64)),
            LatentMoments(
                np.zeros((ball.radius + 1, pcs + 1)),
                np.zeros((pcs, pcs)),
                np.zeros((pcs, pcs)),
                np.zeros(4),
            ),
        )

    def add(sums: Moments, batch: ImageBatch) -> Moments:
        latents = inference(batch)
        weight = np.ones(len(batch)) if latents.weight is None else latents.weight
        first, second = _moments(latents, weight)
        pairs = second[:, *upper].astype(np.float32)
        power, product = batch.transfer**2, batch.transfer * batch.values
        curvature, response = [], []
        for half in (0, 1):
            member = (batch.halves == half)[:, None]
            added = operators.backproject_many(
                (sums.curvature[half], sums.response[half]),
                (power, product),
                (member * pairs, member * first),
                batch.rotations,
                batch.disc,
                ball,
            )
            curvature.append(added[0])
            response.append(added[1])
        known = sums.latents
        known_of_shells = batch.transfer_power().astype(np.float64)
        return Moments(
            tuple(curvature),
            tuple(response),
            LatentMoments(
                known.power + known_of_shells.T @ np.einsum("nkk->nk", second),
                known.explained + (weight * latents.means.T) @ latents.means,
                known.unsure + np.tensordot(weight, latents.covariances, 1),
                known.contrast + _contrast_sums(latents, weight),
            ),
        )

    return Statistic(zeros, add)


def _moments(
    latents: Latents, weight: Float[np.ndarray, " images"]
) -> tuple[Float[np.ndarray, "images channels"], Float[np.ndarray, "images channels channels"]]:
    """Compute E[a z̃] and E[a² z̃ z̃ᵀ] for z̃ = (1, z), times the weights of images."""
    if latents.weighted is not None:
        first = weight[:, None] * latents.weighted.first
        return first.astype(np.float32), weight[:, None, None] * latents.weighted.second
    ones = np.ones((len(latents.means), 1))
    extended = np.concatenate([ones, latents.means], axis=1)
    second = extended[:, :, None] * extended[:, None]
    second[:, 1:, 1:] += latents.covariances
    a = latents.contrast
    first = (weight * a)[:, None] * extended
    return first.astype(np.float32), (weight * a**2)[:, None, None] * second


def _contrast_sums(
    latents: Latents, weight: Float[np.ndarray, " images"]
) -> Float[np.ndarray, " 4"]:
    a, unsure = latents.contrast, latents.contrast_variance
    return np.array([weight.sum(), weight @ a, weight @ np.square(a), weight @ unsure])


def random_inference(count: int, pcs: int, seed: int) -> Inference:
    """Draw coordinates for a cold start, with a contrast that may vary.

    Args:
        count: Number of images; the coordinates of each depend on its row only.
        pcs: Number of components.
        seed: Of the draw.
    """
    drawn = np.random.default_rng(seed).standard_normal((count, pcs), np.float32)

    def inference(batch: ImageBatch) -> Latents:
        images = len(batch)
        unsure = np.full(images, FIRST_CONTRAST_SD**2)
        means = drawn[batch.rows].astype(np.float64)
        return Latents(means, np.zeros((images, pcs, pcs)), np.ones(images), unsure)

    return inference


def infer_from(
    model: Model, ball: Ball, operators: Operators, *, weigh_junk: bool = False
) -> Inference:
    """Infer latents from the current fit, which is transformed once.

    Args:
        model: The fit.
        ball: Where its transforms are wanted.
        operators: Implementation of the slicing.
        weigh_junk: Whether images count only as much as they probably show the molecule.
    """
    stranger = describe_stranger(model.volumes[0]) if weigh_junk else None
    spectra = np.stack([to_ball(volume, ball) for volume in model.volumes], axis=1)

    def inference(batch: ImageBatch) -> Latents:
        statistics = image_statistics(batch, spectra, ball, operators)
        latents = infer(statistics, model.contrast_sd or None, weighted=True)
        if stranger is None:
            return latents
        odds = log_odds_of_junk(batch, stranger, statistics, latents)
        return replace(latents, weight=1 - probability_of_junk(odds))

    return inference
