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
from recovar.core.grid import Grid, expand_shells, shell_average, volume_radii
from recovar.core.halves import Halves
from recovar.core.noise_spectra import ImageNoise
from recovar.subspace import Region, Subspace, SubspaceOptions, estimate_subspace, plan_radii

LEAST_SHARED = 0.25
"""Where the halves share less of a component, more than half of what either found is noise."""
MOST_COMPONENTS = 10

_DRAWS = 19
"""Of subspaces of noise; the largest of 19 values is exceeded by another with 5 %."""
_BLOCK = 512
_BLUR = 2.0
"""Width in voxels of the field that tells where components are strong."""
_ITERATIONS = (6, 3)
"""At either radius: enough to tell components from noise, not to refine them."""
_SHRINKAGE_START = 3
"""Iterations before the real-space prior acts, and over which it rises."""


@dataclass(frozen=True)
class Reproducibility:
    """How much of each component two halves of the images, fitted apart, agree upon."""

    shared: Float64[np.ndarray, " pcs"]
    """Share of a component that both halves hold, in the same way: u·P₁P₂u of the projections
    onto what either found. 1 is all of it; noise gives about 0, and may be below."""
    null: Float64[np.ndarray, " pcs"]
    """What noise of the same spectrum and region in place of one half exceeds in 5 %."""
    first: Float64[np.ndarray, " pcs"]
    """Share of a component within what the first half found. All images hold the noise of this
    half too, so that it is above 0 for noise."""
    second: Float64[np.ndarray, " pcs"]
    """The same of the second half."""
    cosines: Float64[np.ndarray, " rank"]
    """Cosines of the principal angles between what both halves found, descending."""
    radius: int
    """Fourier pixels up to which halves were fitted and components are compared."""

    @property
    def reproducible(self) -> Bool[np.ndarray, " pcs"]:
        """Tell which components are found again."""
        return self.shared > np.maximum(self.null, LEAST_SHARED)


def fit_halves(
    images: Images,
    grid: Grid,
    noise: ImageNoise,
    mask: Float[np.ndarray, "z y x"],
    options: "HalfFit",
    executor: LocalExecutor,
    checkpoints: Halves[Checkpoint] | None = None,
) -> Halves[Subspace]:
    """Fit mean and components to either half of the images at low resolution.

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

    return Halves(fit(0), fit(1))


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
    components: Float[np.ndarray, "pcs z y x"], halves: Halves[Subspace], radius: int, seed: int = 0
) -> Reproducibility:
    """Tell how much of each component the fits to both halves hold.

    Args:
        components: Of all images, in any box over the same cube.
        halves: Fits to half sets.
        radius: Fourier pixels up to which everything is compared.
        seed: Of the subspaces of noise.

    Source: u·P₁P₂u for the projections P of two independent estimates. Both hold the truth up to
    independent errors, so that for a component u that is real it is the product of their overlaps
    with it; the noise that u shares with either half is orthogonal to the other.
    """
    found = halves.map(lambda half: _coarse(half.components.volumes, len(half.mean), radius))
    size = len(halves.first.mean)
    rows = _coarse(components, size, radius)
    bases = found.map(_orthonormal)
    shares = bases.map(lambda basis: rows @ basis)
    random = np.random.default_rng(seed)
    null = np.zeros((_DRAWS, len(rows)))
    with threadpool_limits(1, "blas"):  # such narrow products are slower on several threads
        for number, each in enumerate(null):
            replaced, kept = tuple(found)[number % 2], tuple(bases)[1 - number % 2]
            noise = _orthonormal(_noise_like(replaced, size, radius, random))
            each[:] = _overlap(rows @ kept, kept.T @ noise, rows @ noise)
    between = bases.first.T @ bases.second
    return Reproducibility(
        _overlap(shares.first, between, shares.second),
        null.max(0),
        np.sum(shares.first**2, axis=1),
        np.sum(shares.second**2, axis=1),
        np.minimum(np.linalg.svd(between, compute_uv=False), 1.0),
        radius,
    )


def _overlap(
    first: Float64[np.ndarray, "pcs a"],
    between: Float64[np.ndarray, "a b"],
    second: Float64[np.ndarray, "pcs b"],
) -> Float64[np.ndarray, " pcs"]:
    return np.einsum("ka,ab,kb->k", first, between, second)


def _coarse(
    volumes: Float[np.ndarray, "pcs z y x"], size: int, radius: int
) -> Float64[np.ndarray, "pcs voxels"]:
    """Filter volumes, in a box of `size`, and give them a length of 1."""
    keep = volume_radii(size) <= radius
    rows = np.zeros((len(volumes), size**3))
    for row, volume in zip(rows, volumes, strict=True):
        spectrum = fourier.crop_spectrum(fourier.to_spectrum(volume), size) * keep
        row[:] = fourier.to_volume(spectrum).ravel()
    return rows / np.maximum(np.linalg.norm(rows, axis=1), np.finfo(np.float64).tiny)[:, None]


def _orthonormal(rows: Float64[np.ndarray, "n voxels"]) -> Float64[np.ndarray, "voxels n"]:
    return np.linalg.qr(rows.T)[0]


def _noise_like(
    rows: Float64[np.ndarray, "n voxels"], size: int, radius: int, random: np.random.Generator
) -> Float64[np.ndarray, "n voxels"]:
    """Draw noise with the spectra of these volumes, where they are strong together."""
    volumes = rows.reshape(-1, size, size, size)
    field = np.sqrt(ndimage.gaussian_filter(np.sum(volumes**2, axis=0), _BLUR))
    noise = np.empty_like(volumes)
    for target, volume in zip(noise, volumes, strict=True):
        power = shell_average(np.abs(fourier.to_spectrum(volume)) ** 2, size)
        level = expand_shells(np.sqrt(power), volume_radii(size))
        white = fourier.to_spectrum(random.standard_normal(volume.shape))
        target[:] = field * fourier.to_volume(white * level)
    return _coarse(noise, size, radius)
