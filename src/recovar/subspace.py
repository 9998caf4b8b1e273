"""The mean and the principal subspace together, by maximum likelihood.

Probabilistic principal component analysis with a projection operator per image, fitted by
expectation maximization: `expectation` and `maximization` are its steps, repeated here while
resolution grows from coarse to fine. Images follow y = a·A(μ + U z) + n; the scale of the
components lives in U while fitting. Two priors keep noise out of U: one per shell from the half
sets, one in real space that learns where the molecule varies.
"""

import logging
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from recovar.compute.accumulate import Images, Prepared, Selection
from recovar.compute.executors import Checkpoint, LocalExecutor
from recovar.core import fourier
from recovar.core.frequencies import Ball
from recovar.core.grid import Grid
from recovar.core.noise_spectra import ImageNoise
from recovar.expectation import (
    Inference,
    Model,
    Moments,
    infer_from,
    moments_statistic,
    random_inference,
)
from recovar.maximization import (
    Collect,
    Maximizer,
    Regions,
    Update,
    blocks_of,
    bytes_of_sums,
    orthogonalize,
)
from recovar.pca import PrincipalComponents

logger = logging.getLogger(__name__)

_COLD_ITERATIONS = 2
"""Iterations of a cold start before the half sets agree on anything."""
_LEAST_SPREAD = 1e-3
"""Of contrasts, where they are fitted."""


@dataclass(frozen=True)
class SubspaceOptions:
    """How the subspace is fitted."""

    components: int = 20
    """Components that are fitted."""
    correct_contrast: bool = False
    """Fit a contrast per image."""
    weigh_junk: bool = False
    """Let images count only as much as they probably show the molecule."""
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
    """Components whose coordinates the images determine less than this are left as they are when
    the radius grows."""

    def shrinkage_at(self, iteration: int) -> float:
        """Give the strength of the real-space prior, which rises to its full value."""
        since = iteration + 1 - self.shrinkage_start
        return self.shrinkage * min(1.0, max(0.0, since / self.shrinkage_rise))


@dataclass(frozen=True)
class Region:
    """A part of the molecule with components of its own."""

    part: Float[np.ndarray, "z y x"]
    """Share of each voxel that they may change, 0 to 1."""
    components: int
    """How many are fitted."""


@dataclass(frozen=True)
class Subspace:
    """The fitted model of all images."""

    mean: Float[np.ndarray, "z y x"]
    """Mean map at mean contrast, on the images' grid, up to `radius`."""
    components: PrincipalComponents
    """Principal components and the variances along them, of the first region."""
    contrast_sd: float
    """Spread of the contrasts about 1; 0 where contrast is not fitted."""
    reliability: Float[np.ndarray, " pcs"]
    """Share of each coordinate's variance that the images determine, in the first region."""
    heterogeneity: Float[np.ndarray, "z y x"]
    """Where the molecule varies: 1 fully kept, 0 indistinguishable from noise."""
    radius: int
    """Largest frequency used, in Fourier pixels."""
    beside: tuple[PrincipalComponents, ...] = ()
    """Components of further regions."""


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


def estimate_subspace(  # noqa: PLR0913 (each argument is one idea)
    images: Images,
    grid: Grid,
    noise: ImageNoise,
    mask: Float[np.ndarray, "z y x"],
    options: SubspaceOptions,
    executor: LocalExecutor,
    *,
    last_radius: int,
    regions: tuple[Region, ...] = (),
    start: Model | None = None,
    checkpoint: Checkpoint | None = None,
    memory: int | None = None,
    seed: int = 0,
) -> Subspace:
    """Fit mean, components, their variances and the spread of contrasts.

    Args:
        images: The images.
        grid: Their grid.
        noise: Of every image.
        mask: Where density may be, between 0 and 1; a plain ball is enough.
        options: How to fit.
        executor: Runs the passes over the images.
        last_radius: Largest frequency used, in Fourier pixels; where the mean's half-maps cease to
            agree is a good choice.
        regions: Parts of the molecule whose coordinates are independent; then their numbers of
            components stand for that of `options`. All of it is one if none is given.
        start: Volumes to begin with, on the images' grid: as many components as are fitted, those
            of a region together. Random coordinates if not given.
        checkpoint: Where to save the fit after every iteration; a fit found there is continued.
        memory: Bytes that the sums may take; if they need more, they are made in parts, which
            takes more passes and changes nothing else.
        seed: Of the cold start and of the choice of early images.

    Source: probabilistic PCA by expectation maximization with per-image projection operators;
    frequency marching, half-set prior and learned real-space prior as in the module's text.
    """
    plan = _plan(options, last_radius)
    state = _State.load(
        checkpoint, tuple(region.components for region in regions) or (options.components,), start
    )
    early = _draw(len(images), options.early_images, seed)
    for number in range(state.iteration, len(plan)):
        step = plan[number]
        size = grid.at_radius(step.radius).size
        ball = Ball(size, step.radius)
        if step.radius > plan[0].radius and step.radius > plan[number - 1].radius:
            state = state.narrowed(options.least_reliability)
        state = state.resampled(size)
        collect = _collector(
            Prepared(
                images if step.last else Selection(images, early),
                lambda batch, ball=ball: batch.at_radius(ball.size, ball.radius).whitened(noise),
            ),
            random_inference(len(images), len(state.members), seed)
            if state.model is None
            else infer_from(state.model, ball, executor.operators, weigh_junk=options.weigh_junk),
            len(state.members),
            executor,
            step.title(number, len(plan)),
        )
        bands = 1 if memory is None else _count_bands(ball, len(state.members), memory)
        parts = [_resample_part(region.part, size) for region in regions]
        update = Maximizer(
            ball,
            _mask_at(mask, size),
            bands,
            Regions(np.stack(parts), state.members) if parts else None,
        ).maximize(
            collect,
            options.shell_prior if number >= _COLD_ITERATIONS else 0.0,
            options.shrinkage_at(number),
        )
        state = state.updated(update, options.correct_contrast)
        state.report(step.radius)
        state.save(checkpoint)
    return state.finish(grid, last_radius)


def _collector(
    images: Images, inference: Inference, pcs: int, executor: LocalExecutor, title: str
) -> Collect:
    def collect(ball: Ball) -> Moments:
        statistic = moments_statistic(inference, pcs, ball, executor.operators)
        return executor.accumulate(title, statistic, images)

    return collect


def _count_bands(ball: Ball, pcs: int, memory: int) -> int:
    """Split sums that do not fit; a band has at least one plane."""
    wanted = -(-bytes_of_sums(ball, pcs) // max(memory, 1))
    return min(wanted, ball.reach + 1)


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


def _resample_part(part: Float[np.ndarray, "z y x"], size: int) -> Float[np.ndarray, "n n n"]:
    """Change the box of what is between 0 and 1."""
    scale = (size / part.shape[-1]) ** 3
    coarse = scale * fourier.to_volume(fourier.crop_spectrum(fourier.to_spectrum(part), size))
    return np.clip(coarse, 0, 1)


def _mask_at(mask: Float[np.ndarray, "z y x"], size: int) -> Float[np.ndarray, "n n n"]:
    """Resample a mask, and end it softly before the walls of the box."""
    coarse = _resample_part(mask, size)
    axis = np.arange(size) - size // 2
    radii = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    window = np.clip((size / 2 - 1 - radii) / 2, 0, 1)
    return (coarse * window).astype(np.float32)


@dataclass(frozen=True)
class _State:
    """The fit between two iterations."""

    model: Model | None
    """None before the first iteration."""
    members: Int[np.ndarray, " pcs"]
    """Region of each component that is fitted, ascending."""
    resting: Float[np.ndarray, "resting n n n"] | None
    """Components that are no longer fitted, in the box they were last fitted in."""
    resting_members: Int[np.ndarray, " resting"]
    """Region of each of these."""
    weight: Float[np.ndarray, "z y x"] | None
    """Real-space weight of the last iteration."""
    iteration: int
    """Iterations done."""

    @staticmethod
    def load(
        checkpoint: Checkpoint | None, components: tuple[int, ...], start: Model | None
    ) -> "_State":
        """Continue a fit that was saved, or begin with so many components in each region."""
        saved = None if checkpoint is None else checkpoint.load()
        if saved is None:
            members = np.repeat(np.arange(len(components)), components)
            return _State(start, members, None, members[:0], None, 0)
        return _State(
            Model(saved["volumes"], float(saved["contrast_sd"]), saved["reliability"]),
            saved["members"],
            saved.get("resting"),
            saved["resting_members"],
            saved["weight"],
            int(saved["iteration"]),
        )

    def updated(self, update: Update, correct_contrast: bool) -> "_State":
        """Go on with new volumes."""
        model = orthogonalize(update)
        spread = max(model.contrast_sd, _LEAST_SPREAD) if correct_contrast else 0.0
        model = Model(model.volumes, spread, model.reliability)
        return replace(self, model=model, weight=update.weight, iteration=self.iteration + 1)

    def report(self, radius: int) -> None:
        """Log how strong the components are."""
        if self.model is None:
            return
        sizes = np.sqrt((self.model.volumes[1:] ** 2).sum((1, 2, 3)))
        shares = ", ".join(f"{v:.3f}" for v in sizes[:10] / max(float(sizes[0]), 1e-30))
        logger.debug(
            "radius %d: component sizes %s; contrast sd %.3f",
            radius,
            shares,
            self.model.contrast_sd,
        )

    def save(self, checkpoint: Checkpoint | None) -> None:
        """Make the fit outlive the process."""
        if checkpoint is None or self.model is None or self.weight is None:
            return
        resting = {} if self.resting is None else {"resting": self.resting}
        checkpoint.save(
            volumes=self.model.volumes,
            contrast_sd=self.model.contrast_sd,
            reliability=self.model.reliability,
            members=self.members,
            resting_members=self.resting_members,
            weight=self.weight,
            iteration=self.iteration,
            **resting,
        )

    def narrowed(self, least: float) -> "_State":
        """Let components rest that the images say nothing about; the first of a region is kept."""
        if self.model is None:
            return self
        keep = self.model.reliability > least
        keep[[block.start for block in blocks_of(self.members)]] = True
        if keep.all():
            return self
        tired = self.model.volumes[1:][~keep]
        resting = (
            tired
            if self.resting is None
            else np.concatenate([_resample(self.resting, tired.shape[-1]), tired])
        )
        volumes = self.model.volumes[np.concatenate([[True], keep])]
        return replace(
            self,
            model=Model(volumes, self.model.contrast_sd, self.model.reliability[keep]),
            members=self.members[keep],
            resting=resting,
            resting_members=np.concatenate([self.resting_members, self.members[~keep]]),
        )

    def resampled(self, size: int) -> "_State":
        """Move the model to another box."""
        if self.model is None or self.model.volumes.shape[-1] == size:
            return self
        volumes = _resample(self.model.volumes, size)
        model = Model(volumes, self.model.contrast_sd, self.model.reliability)
        return replace(self, model=model)

    def finish(self, grid: Grid, radius: int) -> Subspace:
        """Put everything on the images' grid and order all components by variance."""
        if self.model is None or self.weight is None:
            raise RuntimeError("the fit has no iterations")
        volumes = _resample(self.model.volumes, grid.size)
        components, members = volumes[1:], self.members
        reliability = self.model.reliability
        if self.resting is not None:
            components = np.concatenate([components, _resample(self.resting, grid.size)])
            members = np.concatenate([members, self.resting_members])
            reliability = np.concatenate([reliability, np.zeros(len(self.resting))])
        first, *beside = [
            principal_axes(components[members == region]) for region in np.unique(members)
        ]
        weight = self.weight * (self.weight.shape[-1] / grid.size) ** -3
        return Subspace(
            volumes[0],
            first,
            self.model.contrast_sd,
            reliability[members == 0],
            np.clip(_resample(weight[None], grid.size)[0], 0, 1),
            radius,
            tuple(beside),
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
