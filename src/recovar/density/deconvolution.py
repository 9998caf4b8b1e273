"""The density that coordinates have without their errors, and how sure it is."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64, Int, Shaped
from threadpoolctl import threadpool_limits

from recovar.compute.progress import NoProgress, Progress
from recovar.density.errors import Observations
from recovar.density.likelihood import Likelihood, make_likelihood
from recovar.density.record import Density
from recovar.density.shape import Shape, estimate_shape, make_grid
from recovar.density.smoothness import SmoothModel, make_model

POINTS = 256, 72, 36, 20
"""Grid points along each axis for 1, 2, 3 and 4 coordinates."""
CLASSES = 8, 6, 5, 4
"""Kinds of errors that are told apart."""
REPLICATES = 200, 100, 40, 20
"""Densities that bands are made of."""
LENGTHS = 2.5, 1.6, 1.1, 0.75, 0.5, 0.33, 0.22, 0.15
"""Smoothness to choose from, in standard deviations of the density."""
_TOLERANCE = 4.0
"""By how much the logarithm of the likelihood of other images may be below the best one's."""
_BAND = 2.5, 97.5
_NOTHING = 0.01
"""What is below this share of the peak is not told from nothing."""


@dataclass(frozen=True)
class Deconvolution:
    """A density without errors."""

    density: Density
    replicates: Float32[np.ndarray, "replicates ..."]
    """What the density might be as well: draws from what images and smoothness allow."""
    length: float
    """Smoothness of the density, in its standard deviations."""
    admissible: tuple[float, ...]
    """Smoothness of the replicates: all that foretell other images as well."""
    moves: bool
    """Whether coordinates vary by more than their errors."""
    left_out: int
    """Images too far off to count."""


@dataclass(frozen=True)
class _Fit:
    length: float
    model: SmoothModel
    noise: Float[np.ndarray, "..."]
    """Of the density from all images."""
    score: float
    """Logarithm of the likelihood of each half under the density from the other one."""


def deconvolve(
    observations: Observations,
    particles: Shaped[np.ndarray, " images"] | None = None,
    *,
    points: int | None = None,
    replicates: int | None = None,
    seed: int = 0,
    progress: Progress = NoProgress(),
) -> Deconvolution:
    """Estimate the density of coordinates without their errors, with 95 % bands.

    Of all smoothnesses for which either half of the particles foretells the other one about
    equally well, the largest gives the density, and all of them the bands: each replicate draws
    particles with replacement, a smoothness, and the random function that the density is expected
    to be near to. The last makes bands cover what smoothing hides (randomized maximum likelihood).

    Args:
        observations: At most 4 coordinates of every image, with their errors.
        particles: Which particle an image shows; each its own if not given.
        points: Grid points along each axis; `POINTS` if not given.
        replicates: How many; `REPLICATES` if not given.
        seed: Of halves and replicates.
        progress: Told how far the work is.

    Source: Oliver et al., Math. Geol. 28, 1 (1996) for the replicates.
    """
    zdim = observations.dimensions
    shape = estimate_shape(observations)
    grid = make_grid(observations, shape, points or POINTS[zdim - 1])
    likelihood = make_likelihood(observations, grid, CLASSES[zdim - 1], seed)
    owners = np.arange(len(observations)) if particles is None else particles
    return fit_density(
        likelihood,
        shape,
        owners,
        replicates or REPLICATES[zdim - 1],
        left_out=int((~likelihood.shares.inside).sum()),
        seed=seed,
        progress=progress,
    )


def fit_density(
    likelihood: Likelihood,
    shape: Shape,
    particles: Shaped[np.ndarray, " images"],
    replicates: int,
    *,
    left_out: int = 0,
    seed: int = 0,
    progress: Progress = NoProgress(),
) -> Deconvolution:
    """Find the density that makes what was observed likely, with 95 % bands.

    Args:
        likelihood: Of densities.
        shape: Of the density.
        particles: Which particle an image shows.
        replicates: How many.
        left_out: Images that the likelihood leaves out.
        seed: Of halves and replicates.
        progress: Told how far the work is.
    """
    generator = np.random.default_rng(seed)
    _, owner = np.unique(particles, return_inverse=True)
    with threadpool_limits(1, "blas"):  # threads that wait for such short products take ages
        fits = _try_lengths(likelihood, shape, owner, generator, progress)
        best = max(fit.score for fit in fits)
        admissible = [fit for fit in fits if fit.score >= best - _TOLERANCE]
        draws = _draw(likelihood, admissible, owner, replicates, generator, progress)
    grid, smoothest = likelihood.grid, admissible[0]
    cell = float(np.prod(grid.spacing))
    values = smoothest.model.density(smoothest.noise) / cell
    return Deconvolution(
        Density(grid.axes, values, find_bands(values, draws / cell)),
        draws / np.float32(cell),
        smoothest.length,
        tuple(fit.length for fit in admissible),
        shape.moves,
        left_out,
    )


def find_bands(
    values: Float[np.ndarray, "..."], replicates: Float[np.ndarray, "replicates ..."]
) -> Float[np.ndarray, "2 ..."]:
    """Find the band that holds 95 % of the replicates at every point, and the density itself."""
    low, high = np.percentile(replicates, _BAND, axis=0)
    low = np.where(low < _NOTHING * values.max(), 0, low)
    return np.stack([np.minimum(low, values), np.maximum(high, values)])


def draw_weights(
    owner: Int[np.ndarray, " images"], generator: np.random.Generator
) -> Float64[np.ndarray, " images"]:
    """Draw how often each image counts; all images of a particle count alike.

    Args:
        owner: Number of the particle of every image, from 0.
        generator: Source of the numbers.
    """
    return generator.poisson(1.0, owner.max() + 1)[owner].astype(np.float64)


def _try_lengths(
    likelihood: Likelihood,
    shape: Shape,
    owner: Int[np.ndarray, " images"],
    generator: np.random.Generator,
    progress: Progress,
) -> list[_Fit]:
    """Fit densities of falling smoothness, until they foretell other images worse and worse."""
    half = (generator.permutation(owner.max() + 1) % 2)[owner]
    halves = [likelihood.count((half == number).astype(np.float64)) for number in (0, 1)]
    parts = [*halves, halves[0] + halves[1]]
    noises = [np.zeros(likelihood.grid.shape)] * len(parts)
    fits: list[_Fit] = []
    with progress.task("Smoothness", len(LENGTHS), "lengths") as advance:
        for length in LENGTHS:
            model = make_model(likelihood, shape, length)
            noises = [model.fit(part, start) for part, start in zip(parts, noises, strict=True)]
            score = model.score(noises[0], halves[1]) + model.score(noises[1], halves[0])
            fits.append(_Fit(length, model, noises[2], score))
            advance(1)
            best = max(fit.score for fit in fits)
            if all(fit.score < best - _TOLERANCE for fit in fits[-2:]):
                break
    return fits


def _draw(
    likelihood: Likelihood,
    fits: list[_Fit],
    owner: Int[np.ndarray, " images"],
    count: int,
    generator: np.random.Generator,
    progress: Progress,
) -> Float32[np.ndarray, "replicates ..."]:
    """Draw densities, each of the smoothnesses in turn."""
    draws = np.empty((count, *likelihood.grid.points), np.float32)
    with progress.task("Uncertainty", count, "replicates") as advance:
        for number in range(count):
            fit = fits[number % len(fits)]
            weights = draw_weights(owner, generator)
            centre = generator.standard_normal(likelihood.grid.shape).astype(fit.noise.dtype)
            noise = fit.model.fit(likelihood.count(weights), fit.noise + centre, centre)
            draws[number] = fit.model.density(noise)
            advance(1)
    return draws
