"""Whether components that all images give are found again in either half of them alone.

The two halves of the images are fitted apart, from different starts and at low resolution, where
that takes a fraction of the time. What is real is in both results; what is noise is not.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Float64, Int
from scipy import ndimage
from threadpoolctl import threadpool_limits

from recovar.compute.accumulate import Images, Selection
from recovar.compute.executors import Checkpoint, LocalExecutor
from recovar.compute.progress import Advance, Progress
from recovar.core import fourier
from recovar.core.batch import ImageBatch
from recovar.core.frequencies import Ball
from recovar.core.grid import Grid, half_weights, shell_average, volume_radii
from recovar.core.halves import Halves
from recovar.core.noise_spectra import ImageNoise
from recovar.core.volumes import to_ball
from recovar.held_out import (
    LEVEL,
    GainCurve,
    HeldOut,
    Verdict,
    average_gains,
    judge,
    reestimate_covariance,
)
from recovar.posterior import ImageStatistics, image_statistics
from recovar.subspace import Region, Subspace, SubspaceOptions, estimate_subspace, plan_radii

LEAST_CONFIRMED = 0.25
"""Where the halves share less of a component, more than half of what either found is noise."""
MOST_COMPONENTS = 10

_DRAWS = 999
"""Of subspaces of noise, so that chances are told down to one in a thousand."""
_LEAST_DETERMINED = 0.05
"""Along components that images determine less, variances are not known."""
_BLOCK = 512
_BLUR = 2.0
"""Width in voxels of the field that tells where components are strong."""
_ITERATIONS = (6, 3)
"""At either radius: enough to tell components from noise, not to refine them."""
_SHRINKAGE_START = 3
"""Iterations before the real-space prior acts, and over which it rises."""


@dataclass(frozen=True)
class Reproducibility:
    """What two halves of the images, fitted apart, say of each component of all images."""

    real: Bool[np.ndarray, " pcs"]
    """Whether halves share it, by chance in 1 % of cases at most, and images of either half
    confirm what the other shares of it."""
    shared: Float64[np.ndarray, " pcs"]
    """Share of a component that both halves hold, in the same way: u·P₁P₂u of the projections
    onto what either found. 1 is all of it; noise gives about 0, and may be below."""
    null: Float64[np.ndarray, " pcs"]
    """What noise of the same spectrum and region in place of one half exceeds in 1 %, for the half
    where that is more."""
    chance: Float64[np.ndarray, " pcs"]
    """How often such noise shares as much; at least one in a thousand."""
    confirmed: Float64[np.ndarray, " pcs"]
    """Like `shared`, of those components of either half alone that make images of the other half
    likelier."""
    first: Float64[np.ndarray, " pcs"]
    """Share of a component within what the first half found. All images hold the noise of this
    half too, so that it is above 0 for noise."""
    second: Float64[np.ndarray, " pcs"]
    """The same of the second half."""
    variance: Float64[np.ndarray, " pcs"]
    """Variance along a component of the images that a half was not fitted to, over what it was
    fitted with; NaN where that is not known."""
    cosines: Float64[np.ndarray, " rank"]
    """Cosines of the principal angles between what both halves found, descending."""
    cosines_null: Float64[np.ndarray, " rank"]
    """What noise in place of one half exceeds in 1 %."""
    gains: GainCurve
    """How much likelier components of one half make images of the other."""
    radius: int
    """Fourier pixels up to which halves were fitted and components are compared."""

    @property
    def suggested_zdim(self) -> int:
        """Number of the last real component; 0 if none is."""
        return int(np.flatnonzero(self.real).max(initial=-1)) + 1


@dataclass(frozen=True)
class HalfFits:
    """What was fitted to half sets, and what it says of the images of the others."""

    models: Halves[Subspace]
    held_out: Halves[HeldOut]
    """Images of the second half set beside the first fit, and of the first beside the second."""


def fit_halves(
    images: Images,
    grid: Grid,
    noise: ImageNoise,
    mask: Float[np.ndarray, "z y x"],
    options: "HalfFit",
    executor: LocalExecutor,
    checkpoints: Halves[Checkpoint] | None = None,
) -> HalfFits:
    """Fit mean and components to either half of the images at low resolution, and show them others.

    Images are read once and kept, with the few Fourier pixels that are needed.

    Args:
        images: The images, with their half sets.
        grid: Their grid.
        noise: Of every image.
        mask: Where density may be, between 0 and 1.
        options: What is fitted, and to which images.
        executor: Runs the passes over the images.
        checkpoints: Where to save each fit after every iteration.
    """
    radius = options.radius
    coarse = grid.at_radius(radius)

    def crop(batch: ImageBatch) -> ImageBatch:
        return batch.at_radius(coarse.size, radius).whitened(noise)

    chosen = options.draw_images()
    kept = executor.map_images("Coarse images", crop, Selection(images, chosen))
    particle = options.particle[chosen]

    def fit(half: int) -> Subspace:
        members = np.flatnonzero(kept.halves == half)
        parts = _split(particle[members], options.seed + half)
        return estimate_subspace(
            _Kept(kept, members, parts),
            coarse,
            np.ones(coarse.shells),
            mask,
            options.subspace,
            replace(executor, progress=_Titled(executor.progress, f"Half set {half + 1}")),
            last_radius=radius,
            regions=options.limited_regions,
            checkpoint=None if checkpoints is None else tuple(checkpoints)[half],
            seed=options.seed + half,
        )

    def hold(half: int, model: Subspace) -> HeldOut:
        members = np.flatnonzero(kept.halves != half)
        others = _Kept(kept, members, kept.halves[members])
        statistics = _compare(model, others, Ball(coarse.size, radius), executor)
        return HeldOut(statistics, model.contrast_sd, particle[members])

    models = Halves(fit(0), fit(1))
    return HalfFits(models, Halves(hold(0, models.first), hold(1, models.second)))


def _compare(
    model: Subspace, images: Images, ball: Ball, executor: LocalExecutor
) -> ImageStatistics:
    volumes = np.concatenate([model.mean[None], _scaled(model)])
    spectra = np.stack([to_ball(volume.astype(np.float32), ball) for volume in volumes], axis=1)

    def compare(batch: ImageBatch) -> ImageStatistics:
        return image_statistics(batch, spectra, ball, executor.operators)

    return executor.map_images("Held-out images", compare, images)


def _scaled(model: Subspace) -> Float[np.ndarray, "pcs z y x"]:
    """Give components along which coordinates have unit variance."""
    found = model.components
    return np.sqrt(found.eigenvalues)[:, None, None, None] * found.volumes


@dataclass(frozen=True)
class HalfFit:
    """What is fitted to half sets, and to which images."""

    particle: Int[np.ndarray, " images"]
    """Which particle an image shows."""
    components: int
    last_radius: int
    """Fourier pixels where half-maps of the mean cease to agree."""
    correct_contrast: bool
    most_images: int
    """Of more, some are drawn at random."""
    seed: int
    regions: tuple[Region, ...] = ()
    """Parts of the molecule with components of their own; those of the first are compared."""

    @property
    def limited_regions(self) -> tuple[Region, ...]:
        """Give the parts with as many components as halves are fitted with."""
        return tuple(
            replace(region, components=min(region.components, MOST_COMPONENTS))
            for region in self.regions
        )

    @property
    def subspace(self) -> SubspaceOptions:
        """How either half is fitted."""
        return SubspaceOptions(
            components=min(self.components, MOST_COMPONENTS),
            correct_contrast=self.correct_contrast,
            iterations=_ITERATIONS,
            shrinkage_start=_SHRINKAGE_START,
            shrinkage_rise=_SHRINKAGE_START,
        )

    @property
    def radius(self) -> int:
        """The second of the radii that the fit to all images visits."""
        return plan_radii(self.subspace, self.last_radius)[:2][-1]

    def with_at_most(self, images: int) -> "HalfFit":
        """Fit fewer images, where memory does not hold more."""
        return replace(self, most_images=min(self.most_images, images))

    def draw_images(self) -> Int[np.ndarray, " chosen"]:
        """Choose the images that are fitted."""
        count = len(self.particle)
        if count <= self.most_images:
            return np.arange(count)
        generator = np.random.default_rng(self.seed)
        return np.sort(generator.choice(count, self.most_images, replace=False))


def _split(particle: Int[np.ndarray, " images"], seed: int) -> Int[np.ndarray, " images"]:
    """Give half sets to the images of one half: the fit needs two, to know what is noise."""
    distinct, which = np.unique(particle, return_inverse=True)
    parts = np.random.default_rng(seed).permutation(len(distinct)) % 2
    return parts[which.reshape(-1)]


@dataclass(frozen=True)
class _Kept:
    """Some images of a batch as a set of their own, with half sets of their own."""

    batch: ImageBatch
    members: Int[np.ndarray, " images"]
    halves: Int[np.ndarray, " images"]

    def __len__(self) -> int:
        return len(self.members)

    def blocks(self, start: int = 0) -> Iterator[ImageBatch]:
        for first in range(start, len(self), _BLOCK):
            own = np.arange(first, min(first + _BLOCK, len(self)))
            part = self.batch.select(self.members[own])
            yield ImageBatch(
                part.disc, part.values, part.transfer, part.rotations, own, self.halves[own]
            )


@dataclass(frozen=True)
class _Titled:
    """Progress of tasks that belong to something."""

    progress: Progress
    title: str

    def task(self, title: str, total: int, unit: str = "images") -> AbstractContextManager[Advance]:
        return self.progress.task(f"{self.title}: {title}", total, unit)


def compare_halves(
    components: Float[np.ndarray, "pcs z y x"], fits: HalfFits, radius: int, seed: int = 0
) -> Reproducibility:
    """Tell how much of each component the fits to both halves hold, and what they are worth.

    Args:
        components: Of all images, in any box over the same cube.
        fits: Fits to half sets.
        radius: Fourier pixels up to which everything is compared.
        seed: Of the subspaces of noise.

    Source: u·P₁P₂u for the projections P of two independent estimates. Both hold the truth up to
    independent errors, so that for a component u that is real it is the product of their overlaps
    with it; the noise that u shares with either half is orthogonal to the other.
    """
    size = len(fits.models.first.mean)
    found = fits.models.map(lambda model: _coarse(_scaled(model), size, radius))
    rows = _unit(_coarse(components, size, radius))
    verdicts = fits.held_out.map(judge)
    confirmed = Halves(
        *(each[verdict.gaining] for each, verdict in zip(found, verdicts, strict=True))
    )
    with threadpool_limits(1, "blas"):  # such narrow products are slower on several threads
        bases, few = found.map(_orthonormal), confirmed.map(_orthonormal)
        shares = bases.map(lambda basis: rows @ basis)
        between = bases.first.T @ bases.second
        shared = _overlap(shares.first, between, shares.second)
        null = _draw_null(rows, found, bases, _Filter(size, radius), seed)
        chance = (1 + np.sum(null.shared >= shared, axis=1).max(0)) / (1 + _DRAWS)
        agreed = _overlap(rows @ few.first, few.first.T @ few.second, rows @ few.second)
    real = (chance <= LEVEL) & (agreed > LEAST_CONFIRMED)
    return Reproducibility(
        real=real,
        shared=shared,
        null=np.quantile(null.shared, 1 - LEVEL, axis=1).max(0),
        chance=chance,
        confirmed=agreed,
        first=np.sum(shares.first**2, axis=1),
        second=np.sum(shares.second**2, axis=1),
        variance=np.where(real, _compare_variances(rows, found, fits.held_out, verdicts), np.nan),
        cosines=np.minimum(np.linalg.svd(between, compute_uv=False), 1.0),
        cosines_null=np.quantile(null.cosines, 1 - LEVEL, axis=1).max(0),
        gains=average_gains(verdicts),
        radius=radius,
    )


def _overlap(
    first: Float64[np.ndarray, "pcs a"],
    between: Float64[np.ndarray, "a b"],
    second: Float64[np.ndarray, "pcs b"],
) -> Float64[np.ndarray, " pcs"]:
    return np.einsum("ka,ab,kb->k", first, between, second)


def _compare_variances(
    rows: Float64[np.ndarray, "pcs voxels"],
    found: Halves[Float64[np.ndarray, "_ voxels"]],
    held_out: Halves[HeldOut],
    verdicts: Halves[Verdict],
) -> Float64[np.ndarray, " pcs"]:
    """Divide variances of held-out images along components by fitted ones, of both halves."""
    true, fitted = np.zeros(len(rows)), np.zeros(len(rows))
    for each, held, verdict in zip(found, held_out, verdicts, strict=True):
        keep = verdict.gaining & (held.determined > _LEAST_DETERMINED)
        along = rows @ each[keep].T
        covariance = reestimate_covariance(held, keep)
        true += np.einsum("ka,ab,kb->k", along, covariance, along)
        fitted += np.sum(along**2, axis=1)
    return np.divide(true, fitted, out=np.full(len(rows), np.nan), where=fitted > 0)


def _coarse(
    volumes: Float[np.ndarray, "pcs z y x"], size: int, radius: int
) -> Float64[np.ndarray, "pcs voxels"]:
    """Filter volumes, in a box of `size`."""
    keep = volume_radii(size) <= radius
    rows = np.zeros((len(volumes), size**3))
    for row, volume in zip(rows, volumes, strict=True):
        spectrum = fourier.crop_spectrum(fourier.to_spectrum(volume), size) * keep
        row[:] = fourier.to_volume(spectrum).ravel()
    return rows


def _unit(rows: Float64[np.ndarray, "n voxels"]) -> Float64[np.ndarray, "n voxels"]:
    return rows / np.maximum(np.linalg.norm(rows, axis=1), np.finfo(np.float64).tiny)[:, None]


def _orthonormal(rows: Float64[np.ndarray, "n voxels"]) -> Float64[np.ndarray, "voxels n"]:
    return np.linalg.qr(_unit(rows).T)[0]


@dataclass(frozen=True)
class _Filter:
    """The box and the frequencies that are compared."""

    size: int
    radius: int


@dataclass(frozen=True)
class _Null:
    """What is shared where noise replaces one half or the other."""

    shared: Float64[np.ndarray, "2 draws pcs"]
    cosines: Float64[np.ndarray, "2 draws rank"]


def _draw_null(
    rows: Float64[np.ndarray, "pcs voxels"],
    found: Halves[Float64[np.ndarray, "_ voxels"]],
    bases: Halves[Float64[np.ndarray, "voxels _"]],
    band: _Filter,
    seed: int,
) -> _Null:
    """Replace one half or the other by noise with the spectra of its components, where they lie.

    Only products of the noise with what it is compared to are drawn: their covariance is known.
    Volumes of noise are as good as orthogonal to each other.
    """
    random = np.random.default_rng(seed)
    rank = min(each.shape[1] for each in bases)
    shared, cosines = np.zeros((2, _DRAWS, len(rows))), np.zeros((2, _DRAWS, rank))
    for number, (replaced, kept) in enumerate(zip(found, reversed(tuple(bases)), strict=True)):
        tested = np.concatenate([rows, kept.T])
        roots = _noise_roots(tested, _unit(replaced), band)
        draws = random.standard_normal((_DRAWS, len(roots), len(tested)))
        drawn = np.einsum("dkt,kst->dks", draws, roots)
        on_rows, on_kept = drawn[..., : len(rows)], drawn[..., len(rows) :]
        shared[number] = np.einsum("ka,dna,dnk->dk", rows @ kept, on_kept, on_rows)
        if rank:
            cosines[number] = np.linalg.svd(on_kept, compute_uv=False)[:, :rank]
    return _Null(shared, np.minimum(cosines, 1.0))


def _noise_roots(
    tested: Float64[np.ndarray, "tested voxels"],
    imitated: Float64[np.ndarray, "n voxels"],
    band: _Filter,
) -> Float64[np.ndarray, "n tested tested"]:
    """Give roots of the covariances of products of unit volumes of noise with others.

    Noise is white, gets the spectrum of an imitated volume, and then the square root of the
    variance of all of them in space: its product with t is that of white noise with the spectrum
    times the transform of the root times t.
    """
    shape = (band.size,) * 3
    volumes = imitated.reshape(-1, *shape)
    field = np.sqrt(ndimage.gaussian_filter(np.sum(volumes**2, axis=0), _BLUR))
    spectra = np.stack([fourier.to_spectrum(field * each.reshape(shape)) for each in tested])
    shells = np.minimum(np.rint(volume_radii(band.size)), band.radius + 1).astype(np.int64)
    weights = np.broadcast_to(half_weights(band.size), shells.shape)
    products = np.zeros((band.radius + 1, len(tested), len(tested)))
    counts = np.zeros(len(products))
    for shell, product in enumerate(products):
        part, counts[shell] = spectra[:, shells == shell], weights[shells == shell].sum()
        product[:] = np.real((part * weights[shells == shell]) @ part.conj().T)
    roots = np.zeros((len(volumes), len(tested), len(tested)))
    for volume, root in zip(volumes, roots, strict=True):
        power = shell_average(np.abs(fourier.to_spectrum(volume)) ** 2, band.size)
        power = power[: band.radius + 1]
        covariance = np.tensordot(power, products, 1)
        norm = np.sum(field**2) * (power @ counts)
        values, vectors = np.linalg.eigh(covariance / max(norm, np.finfo(np.float64).tiny))
        root[:] = vectors * np.sqrt(np.maximum(values, 0))
    return roots
