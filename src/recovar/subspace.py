"""The mean and the principal subspace together, by maximum likelihood.

Probabilistic principal component analysis with a projection operator per image, fitted by
expectation maximization. Images follow y = a·A(μ + U z) + n; the scale of the components lives in
U while fitting. Resolution grows from coarse to fine; two priors keep noise out of U: one per
shell from the half sets, one in real space that learns where the molecule varies.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Complex, Float
from scipy import ndimage

from recovar.compute.accumulate import Images, Prepared, Selection, Statistic
from recovar.compute.executors import Checkpoint, LocalExecutor
from recovar.core import fourier
from recovar.core.batch import ImageBatch
from recovar.core.frequencies import Ball
from recovar.core.grid import Grid
from recovar.core.slicing import Operators
from recovar.core.solve_numba import solve_packed
from recovar.core.volumes import from_ball, to_ball
from recovar.pca import PrincipalComponents
from recovar.posterior import Latents, image_statistics, infer
from recovar.regularization import ball_shell_average, fsc, signal_to_noise

logger = logging.getLogger(__name__)

_HALF_RIDGE, _RIDGE = 1e-4, 1e-6
_COLD_ITERATIONS = 2
"""Iterations of a cold start before the half sets agree on anything."""
_FIRST_CONTRAST_SD = 0.2
"""Spread of contrasts that a cold start assumes."""
_LEAST_CURVATURE = 1e-3
"""What is known of a voxel is raised by this share of its shell's average."""
_BLUR = 2.0
"""Width in voxels, at the current resolution, of the field that tells where U varies."""


@dataclass(frozen=True)
class SubspaceOptions:
    """How the subspace is fitted."""

    components: int = 20
    """Components that are fitted."""
    correct_contrast: bool = False
    """Fit a contrast per image."""
    first_radius: int = 14
    """Fourier pixels at the start."""
    growth: float = 1.5
    """Factor from one radius to the next."""
    iterations: tuple[int, ...] = (11, 4, 3)
    """Iterations at each radius; the last entry serves all further ones."""
    early_images: int = 20_000
    """Images used at all but the last radius, drawn at random."""
    shell_prior: float = 4.0
    """Strength of the signal that half sets must share, as the ratio of box to molecule."""
    shrinkage: float = 2.0
    """Multiple of the noise floor that real-space variance must exceed; 0 turns it off."""
    shrinkage_start: int = 4
    """Iterations before the real-space prior acts."""
    shrinkage_rise: int = 4
    """Iterations over which it gains its full strength."""
    least_reliability: float = 0.02
    """Components whose coordinates the images determine less than this are no longer fitted."""


class Model(eqx.Module):
    """The current fit, on the grid of the current radius."""

    volumes: Float[np.ndarray, "channels z y x"]
    """Mean, then components with unit-variance coordinates, strongest first."""
    contrast_sd: float
    """Spread of the contrasts about 1."""
    reliability: Float[np.ndarray, " pcs"]
    """Share of each coordinate's variance that the images determine."""

    @property
    def components(self) -> int:
        """Count the components."""
        return len(self.volumes) - 1

    def resampled(self, size: int) -> "Model":
        """Move to a box of another size over the same cube, keeping all shared frequencies."""
        return Model(_resample(self.volumes, size), self.contrast_sd, self.reliability)

    def spectra(self, ball: Ball) -> Complex[np.ndarray, "voxels channels"]:
        """Transform all volumes for slicing."""
        return np.stack([to_ball(volume, ball) for volume in self.volumes], axis=1)


class Moments(eqx.Module):
    """Sums over images for the next fit, and what they were made from."""

    curvature: tuple[Float[np.ndarray, "voxels pairs"], Float[np.ndarray, "voxels pairs"]]
    """Per half set, Σ transfer² · E[z̃ z̃ᵀ] a² with z̃ = (1, z), upper triangle."""
    response: tuple[Complex[np.ndarray, "voxels channels"], Complex[np.ndarray, "voxels channels"]]
    """Per half set, Σ transfer · image · E[z̃] a."""
    latents: Latents
    """Of all images by row; those not visited are 0."""
    used: Float[np.ndarray, " images"]
    """1 for every image visited, by row."""


@dataclass(frozen=True)
class Subspace:
    """The fitted model of all images."""

    mean: Float[np.ndarray, "z y x"]
    """Mean map at mean contrast, on the images' grid, up to `radius`."""
    components: PrincipalComponents
    """Principal components and the variances along them."""
    contrast_sd: float
    """Spread of the contrasts about 1; 0 where contrast is not fitted."""
    reliability: Float[np.ndarray, " pcs"]
    """Share of each coordinate's variance that the images determine."""
    heterogeneity: Float[np.ndarray, "z y x"]
    """Where the molecule varies: 1 fully kept, 0 indistinguishable from noise."""
    radius: int
    """Largest frequency used, in Fourier pixels."""


Inference = Callable[[ImageBatch], Latents]
"""Gives the latents of a whitened batch."""


def plan_radii(options: SubspaceOptions, last: int) -> list[int]:
    """List the radii that the fit visits, in Fourier pixels.

    Example:
        >>> plan_radii(SubspaceOptions(), 30)
        [14, 21, 30]
    """
    radii = [min(options.first_radius, last)]
    while radii[-1] < last:
        following = round(radii[-1] * options.growth)
        radii.append(last if following * options.growth**0.5 > last else following)
    return radii


def moments_statistic(
    inference: Inference, pcs: int, count: int, ball: Ball, operators: Operators
) -> Statistic[Moments]:
    """Sum second and first moments of the latents, backprojected, for the next fit.

    Args:
        inference: Gives the latents of a batch.
        pcs: Number of components.
        count: Number of images in the whole data set.
        ball: Where the sums lie.
        operators: Implementation of the backprojection.
    """
    upper = np.triu_indices(pcs + 1)

    def zeros() -> Moments:
        voxels, pairs = len(ball), len(upper[0])
        return Moments(
            tuple(np.zeros((voxels, pairs), np.float32) for _ in range(2)),
            tuple(np.zeros((voxels, pcs + 1), np.complex64) for _ in range(2)),
            Latents(
                np.zeros((count, pcs)),
                np.zeros((count, pcs, pcs)),
                np.zeros(count),
                np.zeros(count),
            ),
            np.zeros(count),
        )

    def add(sums: Moments, batch: ImageBatch) -> Moments:
        latents = inference(batch)
        first, second = _moments(latents)
        pairs = second[:, *upper].astype(np.float32)
        power, product = batch.transfer**2, batch.transfer * batch.values
        curvature, response = [], []
        for half in (0, 1):
            keep = np.flatnonzero(batch.halves == half)
            geometry = batch.rotations[keep], batch.disc, ball
            curvature.append(
                operators.backproject(sums.curvature[half], power[keep], pairs[keep], *geometry)
            )
            response.append(
                operators.backproject(sums.response[half], product[keep], first[keep], *geometry)
            )
        _put(sums.latents, latents, batch.rows)
        sums.used[batch.rows] = 1
        return Moments(tuple(curvature), tuple(response), sums.latents, sums.used)

    return Statistic(zeros, add)


def _moments(
    latents: Latents,
) -> tuple[Float[np.ndarray, "images channels"], Float[np.ndarray, "images channels channels"]]:
    """Compute a·E[z̃] and a²·E[z̃ z̃ᵀ] for z̃ = (1, z)."""
    ones = np.ones((len(latents.means), 1))
    extended = np.concatenate([ones, latents.means], axis=1)
    second = extended[:, :, None] * extended[:, None]
    second[:, 1:, 1:] += latents.covariances
    contrast = latents.contrast[:, None]
    return (contrast * extended).astype(np.float32), contrast[..., None] ** 2 * second


def _put(store: Latents, latents: Latents, rows: np.ndarray) -> None:
    store.means[rows] = latents.means
    store.covariances[rows] = latents.covariances
    store.contrast[rows] = latents.contrast
    store.contrast_variance[rows] = latents.contrast_variance


@dataclass(frozen=True)
class Fit:
    """Everything that stays the same at one radius."""

    ball: Ball
    mask: Float[np.ndarray, "z y x"]
    """Where density may be, on the grid of this radius."""
    options: SubspaceOptions

    def maximize(
        self, sums: Moments, iteration: int
    ) -> tuple[Float[np.ndarray, "channels z y x"], Float[np.ndarray, "z y x"]]:
        """Solve for mean and components, and shrink the components where nothing varies.

        Returns:
            The volumes, and the real-space weight of the components.
        """
        curvature = [self.ball.fold(part) for part in sums.curvature]
        response = [self.ball.fold(part) for part in sums.response]
        average = self._average_curvature(curvature)
        prior = _LEAST_CURVATURE * average
        if iteration >= _COLD_ITERATIONS:
            prior[:, 1:] += average[:, 1:] / self._signal_to_noise(curvature, response, prior)
        solution = solve_packed(
            curvature[0] + curvature[1], response[0] + response[1], self._expand(prior), _RIDGE
        )
        volumes = self._maps(solution)
        weight = np.ones_like(self.mask)
        start = self.options.shrinkage_start
        if self.options.shrinkage > 0 and iteration >= start:
            strength = min(1.0, (iteration + 1 - start) / self.options.shrinkage_rise)
            weight = self._relevance(volumes, strength * self.options.shrinkage)
            volumes[1:] *= weight
        return volumes, weight

    def _maps(
        self, solution: Complex[np.ndarray, "voxels channels"]
    ) -> Float[np.ndarray, "channels z y x"]:
        return np.stack([from_ball(column, self.ball) * self.mask for column in solution.T])

    def _average_curvature(
        self, curvature: list[Float[np.ndarray, "voxels pairs"]]
    ) -> Float[np.ndarray, "shells channels"]:
        """Average what one half set knows of each volume over shells."""
        pairs = curvature[0].shape[1]
        channels = int((np.sqrt(8 * pairs + 1) - 1) / 2)
        first, second = np.triu_indices(channels)
        diagonal = np.flatnonzero(first == second)
        known = 0.5 * (curvature[0][:, diagonal] + curvature[1][:, diagonal])
        return np.stack([ball_shell_average(column, self.ball) for column in known.T], axis=1)

    def _expand(
        self, profiles: Float[np.ndarray, "shells channels"]
    ) -> Float[np.ndarray, "voxels channels"]:
        shells = np.minimum(np.rint(self.ball.radii).astype(np.int64), self.ball.radius)
        return profiles[shells].astype(np.float32)

    def _signal_to_noise(
        self,
        curvature: list[Float[np.ndarray, "voxels pairs"]],
        response: list[Complex[np.ndarray, "voxels channels"]],
        floor: Float[np.ndarray, "shells channels"],
    ) -> Float[np.ndarray, "shells pcs"]:
        """Estimate each component's signal-to-noise ratio by comparing the half sets."""
        least = self._expand(floor)
        halves = [
            self._maps(solve_packed(c, r, least, _HALF_RIDGE))
            for c, r in zip(curvature, response, strict=True)
        ]
        curves = [
            fsc(*(fourier.to_spectrum(half[k]) for half in halves))[: self.ball.radius + 1]
            for k in range(1, response[0].shape[1])
        ]
        return self.options.shell_prior * np.stack([signal_to_noise(c) for c in curves], axis=1)

    def _relevance(
        self, volumes: Float[np.ndarray, "channels z y x"], multiple: float
    ) -> Float[np.ndarray, "z y x"]:
        """Weigh voxels by how far the components' variance there exceeds its noise.

        The noise is read off where the mean is weakest; `multiple` of it is taken off.
        """
        variance = ndimage.gaussian_filter((volumes[1:] ** 2).sum(0), _BLUR)
        density = ndimage.gaussian_filter(np.abs(volumes[0]), _BLUR)
        inside = self._inside()
        empty = inside & (density < np.median(density[inside]))
        floor = multiple * float(np.median(variance[empty]))
        excess = 1 - floor / np.maximum(variance, np.finfo(np.float32).tiny)
        return np.maximum(excess, 0) ** 2

    def _inside(self) -> Bool[np.ndarray, "z y x"]:
        """Mark where the mask is 1, away from its edge."""
        size = self.ball.size
        axis = np.arange(size) - size // 2
        radii = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
        return (radii < size / 2 - 3) & (self.mask > 0.5)


def _rotate(
    volumes: Float[np.ndarray, "channels z y x"], sums: Moments, options: SubspaceOptions
) -> Model:
    """Make components orthogonal with unit-variance coordinates, and mean contrast 1."""
    used = np.flatnonzero(sums.used)
    latents, count = sums.latents, len(used)
    means = latents.means[used]
    explained = means.T @ means / count
    total = explained + latents.covariances[used].mean(0)
    pcs = len(total)
    root = np.linalg.cholesky(total + 1e-9 * np.trace(total) / pcs * np.eye(pcs))
    flat = volumes[1:].reshape(pcs, -1)
    gram = root.T @ (flat @ flat.T).astype(np.float64) @ root
    axes = np.linalg.eigh(gram)[1][:, ::-1]
    turn = root @ axes
    back = np.linalg.inv(turn)
    contrast = latents.contrast[used]
    scale = float(contrast.mean()) if options.correct_contrast else 1.0
    spread = float(np.sqrt(contrast.var() + latents.contrast_variance[used].mean())) / scale
    components = (turn.T.astype(np.float32) @ flat).reshape(volumes[1:].shape)
    return Model(
        scale * np.concatenate([volumes[:1], components]),
        max(spread, 1e-3) if options.correct_contrast else 0.0,
        np.diag(back @ explained @ back.T),
    )


def random_latents(count: int, pcs: int, seed: int) -> Latents:
    """Draw coordinates for a cold start, with a contrast that may vary."""
    means = np.random.default_rng(seed).standard_normal((count, pcs))
    unsure = np.full(count, _FIRST_CONTRAST_SD**2)
    return Latents(means, np.zeros((count, pcs, pcs)), np.ones(count), unsure)


def _look_up(latents: Latents) -> Inference:
    return lambda batch: Latents(
        latents.means[batch.rows],
        latents.covariances[batch.rows],
        latents.contrast[batch.rows],
        latents.contrast_variance[batch.rows],
    )


def _infer_from(model: Model, ball: Ball, operators: Operators, contrast: bool) -> Inference:
    spectra = model.spectra(ball)
    sd = model.contrast_sd if contrast else None

    def inference(batch: ImageBatch) -> Latents:
        return infer(image_statistics(batch, spectra, ball, operators), sd)

    return inference


def estimate_subspace(  # noqa: PLR0913 (each argument is one idea)
    images: Images,
    grid: Grid,
    noise: Float[np.ndarray, " shells"],
    mask: Float[np.ndarray, "z y x"],
    options: SubspaceOptions,
    executor: LocalExecutor,
    *,
    last_radius: int,
    checkpoint: Checkpoint | None = None,
    seed: int = 0,
) -> Subspace:
    """Fit mean, components, their variances and the spread of contrasts.

    Args:
        images: The images.
        grid: Their grid.
        noise: Variance per shell of the unnormalized transform.
        mask: Where density may be, between 0 and 1; a plain ball is enough.
        options: How to fit.
        executor: Runs the passes over the images.
        last_radius: Largest frequency used, in Fourier pixels; where the mean's half-maps cease to
            agree is a good choice.
        checkpoint: Where to save the fit after every iteration; a fit found there is continued.
        seed: Of the cold start and of the choice of early images.

    Source: probabilistic PCA by expectation maximization with per-image projection operators;
    frequency marching, half-set prior and learned real-space prior as in the module's text.
    """
    plan = _plan(options, last_radius)
    state = _State.start(options) if checkpoint is None else _State.load(checkpoint, options)
    early = _draw(len(images), options.early_images, seed)
    for number in range(state.iteration, len(plan)):
        step = plan[number]
        size = grid.at_radius(step.radius).size
        ball = Ball(size, step.radius)
        chosen = images if step.last else Selection(images, early)
        prepared = Prepared(
            chosen, lambda batch, ball=ball: batch.at_radius(ball.size, ball.radius).whitened(noise)
        )
        if number > options.shrinkage_start + options.shrinkage_rise:
            state = state.narrowed(options.least_reliability)
        state = state.resampled(size)
        inference = (
            _look_up(random_latents(len(images), options.components, seed))
            if state.model is None
            else _infer_from(state.model, ball, executor.operators, options.correct_contrast)
        )
        pcs = options.components if state.model is None else state.model.components
        statistic = moments_statistic(inference, pcs, len(images), ball, executor.operators)
        sums = executor.accumulate(step.title(number, len(plan)), statistic, prepared)
        fit = Fit(ball, _mask_at(mask, size), options)
        volumes, weight = fit.maximize(sums, number)
        state = _State(_rotate(volumes, sums, options), state.resting, weight, number + 1)
        _report(state, step)
        if checkpoint is not None:
            state.save(checkpoint)
    return state.finish(grid, last_radius)


@dataclass(frozen=True)
class _Step:
    """One iteration of the plan."""

    radius: int
    last: bool
    """At the last radius, where all images are used."""

    def title(self, number: int, total: int) -> str:
        """Name the iteration for the progress display."""
        return f"Subspace, iteration {number + 1} of {total}, radius {self.radius}"


def _plan(options: SubspaceOptions, last_radius: int) -> list[_Step]:
    radii = plan_radii(options, last_radius)
    return [
        _Step(radius, radius == radii[-1])
        for stage, radius in enumerate(radii)
        for _ in range(options.iterations[min(stage, len(options.iterations) - 1)])
    ]


def _draw(count: int, wanted: int, seed: int) -> np.ndarray:
    if wanted >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, wanted, replace=False))


def _mask_at(mask: Float[np.ndarray, "z y x"], size: int) -> Float[np.ndarray, "n n n"]:
    """Resample a mask, and end it softly before the walls of the box."""
    scale = (size / mask.shape[-1]) ** 3
    coarse = scale * fourier.to_volume(fourier.crop_spectrum(fourier.to_spectrum(mask), size))
    axis = np.arange(size) - size // 2
    radii = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    window = np.clip((size / 2 - 1 - radii) / 2, 0, 1)
    return (np.clip(coarse, 0, 1) * window).astype(np.float32)


def _report(state: "_State", step: _Step) -> None:
    model = state.model
    if model is not None:
        sizes = np.sqrt((model.volumes[1:] ** 2).sum((1, 2, 3)))
        shares = ", ".join(f"{v:.3f}" for v in sizes[:10] / sizes[0])
        logger.debug(
            "radius %d: component sizes %s; contrast sd %.3f",
            step.radius,
            shares,
            model.contrast_sd,
        )


@dataclass(frozen=True)
class _State:
    """The fit between two iterations."""

    model: Model | None
    """None before the first iteration."""
    resting: Float[np.ndarray, "resting n n n"] | None
    """Components that are no longer fitted, in the box they were last fitted in."""
    weight: Float[np.ndarray, "z y x"] | None
    """Real-space weight of the last iteration."""
    iteration: int
    """Iterations done."""

    @staticmethod
    def start(options: SubspaceOptions) -> "_State":
        """Begin cold."""
        del options
        return _State(None, None, None, 0)

    @staticmethod
    def load(checkpoint: Checkpoint, options: SubspaceOptions) -> "_State":
        """Continue a fit that was saved, or begin."""
        saved = checkpoint.load()
        if saved is None:
            return _State.start(options)
        model = Model(saved["volumes"], float(saved["contrast_sd"]), saved["reliability"])
        return _State(model, saved.get("resting"), saved["weight"], int(saved["iteration"]))

    def save(self, checkpoint: Checkpoint) -> None:
        """Make the fit outlive the process."""
        if self.model is None or self.weight is None:
            return
        resting = {} if self.resting is None else {"resting": self.resting}
        checkpoint.save(
            volumes=self.model.volumes,
            contrast_sd=self.model.contrast_sd,
            reliability=self.model.reliability,
            weight=self.weight,
            iteration=self.iteration,
            **resting,
        )

    def narrowed(self, least: float) -> "_State":
        """Let components rest that the images say nothing about; the first is always kept."""
        if self.model is None:
            return self
        keep = self.model.reliability > least
        keep[0] = True
        if keep.all():
            return self
        tired = self.model.volumes[1:][~keep]
        resting = (
            tired
            if self.resting is None
            else np.concatenate([_resample(self.resting, tired.shape[-1]), tired])
        )
        volumes = self.model.volumes[np.concatenate([[True], keep])]
        model = Model(volumes, self.model.contrast_sd, self.model.reliability[keep])
        return _State(model, resting, self.weight, self.iteration)

    def resampled(self, size: int) -> "_State":
        """Move the model to another box."""
        if self.model is None or self.model.volumes.shape[-1] == size:
            return self
        return _State(self.model.resampled(size), self.resting, self.weight, self.iteration)

    def finish(self, grid: Grid, radius: int) -> Subspace:
        """Put everything on the images' grid and order all components by variance."""
        if self.model is None or self.weight is None:
            raise RuntimeError("the fit has no iterations")
        volumes = _resample(self.model.volumes, grid.size)
        components = volumes[1:]
        reliability = self.model.reliability
        if self.resting is not None:
            components = np.concatenate([components, _resample(self.resting, grid.size)])
            reliability = np.concatenate([reliability, np.zeros(len(self.resting))])
        weight = self.weight * (self.weight.shape[-1] / grid.size) ** -3
        return Subspace(
            volumes[0],
            principal_axes(components),
            self.model.contrast_sd,
            reliability,
            np.clip(_resample(weight[None], grid.size)[0], 0, 1),
            radius,
        )


def _resample(
    volumes: Float[np.ndarray, "volumes z y x"], size: int
) -> Float[np.ndarray, "volumes z2 y2 x2"]:
    """Change the box over the same cube, keeping Fourier coefficients as they are."""
    spectra = [
        fourier.pad_spectrum(fourier.crop_spectrum(fourier.to_spectrum(v), size), size)
        for v in volumes
    ]
    return np.stack([fourier.to_volume(s).astype(np.float32) for s in spectra])


def principal_axes(factors: Float[np.ndarray, "pcs z y x"]) -> PrincipalComponents:
    """Turn components with unit-variance coordinates into principal components.

    Components without any power are left out.
    """
    flat = factors.reshape(len(factors), -1)
    values, axes = np.linalg.eigh((flat @ flat.T).astype(np.float64))
    order = np.argsort(values)[::-1]
    keep = order[values[order] > 1e-10 * max(float(values.max()), np.finfo(np.float32).tiny)]
    voxels = flat.shape[1]
    turned = (axes[:, keep] / np.sqrt(values[keep] * voxels)).T.astype(np.float32) @ flat
    turned *= np.where(turned.sum(1) < 0, -1, 1)[:, None]
    return PrincipalComponents(turned.reshape(-1, *factors.shape[1:]), values[keep] * voxels)
