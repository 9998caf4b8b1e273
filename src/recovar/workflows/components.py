"""What every way to find principal components ends with, and how images are compared with it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from recovar.compute.accumulate import Images, Selection
from recovar.core.batch import ImageBatch
from recovar.core.frequencies import Ball
from recovar.core.volumes import to_ball
from recovar.embedding import add_up, sum_particles
from recovar.latent_covariance import Observed, fit_axes
from recovar.pca import PrincipalComponents
from recovar.posterior import ImageStatistics, image_statistics
from recovar.run import Stage
from recovar.self_influence import ShellProducts
from recovar.workflows.mean import Homogeneous
from recovar.workflows.work import Work

_MOST_PARTICLES = 20_000
"""That variances of coordinates are fitted to; more would change them by less than a percent."""


@dataclass(frozen=True)
class Components:
    """Principal components, however they were found."""

    mean: Float[np.ndarray, "z y x"]
    """Where coordinates count from."""
    principal: PrincipalComponents
    """Of all of the molecule, or of the first focus."""
    contrast_sd: float
    """Spread of contrasts about 1; 0 where contrast is not estimated."""
    heterogeneity: Float[np.ndarray, "z y x"] | None
    """Where the molecule varies, where that was learned."""
    radius: int
    """Largest frequency used, in Fourier pixels."""
    beside: tuple[PrincipalComponents, ...] = ()
    """Of further focus masks, and of what is outside of them."""

    @property
    def regions(self) -> tuple[PrincipalComponents, ...]:
        """Those of every region."""
        return (self.principal, *self.beside)

    @property
    def volumes(self) -> Float[np.ndarray, "pcs z y x"]:
        """All components, region by region."""
        return np.concatenate([each.volumes for each in self.regions])

    @property
    def eigenvalues(self) -> Float[np.ndarray, " pcs"]:
        """Variances of the coordinates along all components."""
        return np.concatenate([each.eigenvalues for each in self.regions])


def calibrate(stage: Stage, work: Work, whole: Homogeneous, found: Components) -> Components:
    """Make the images say how much molecules vary along components, and turn these accordingly.

    Priors that keep noise out of components make them too small; their variances are fitted again
    without priors.
    """
    particle = np.unique(work.inputs.particles.particle, return_inverse=True)[1]
    chosen = _some_particles(particle)
    images = whole.images if len(chosen) == len(particle) else Selection(whole.images, chosen)
    compared = _compare_with_transfer(work, whole, found, images)
    statistics, transfer = compared.statistics, compared.transfer.astype(np.float64)
    if particle.max() + 1 < len(particle):
        own = np.unique(particle[chosen], return_inverse=True)[1]
        statistics, transfer = add_up(statistics, own), sum_particles(transfer, own)
    counts = [len(each.eigenvalues) for each in found.regions]
    regions = np.repeat(np.arange(len(counts)), counts)
    volumes, eigenvalues = found.volumes, found.eigenvalues
    products = ShellProducts.of(volumes, eigenvalues, regions, found.radius)
    observed = Observed(statistics, transfer, int(particle.max()) + 1)
    axes = fit_axes(observed, products, eigenvalues, regions, found.contrast_sd)
    turned = np.tensordot(axes.turn.T.astype(np.float32), volumes, 1)
    turned *= np.where(turned.sum((1, 2, 3)) < 0, -1, 1)[:, None, None, None].astype(np.float32)
    factor = float(axes.variances.sum() / eigenvalues.sum())
    stage.decide(
        "variances of coordinates",
        f"{factor:.3g} times those of the fit, {int(axes.confirmed.sum())} of them confirmed",
        f"they make {len(statistics.gram)} images most likely, without the priors of the fit",
    )
    principal, *beside = (
        PrincipalComponents(turned[regions == region], axes.variances[regions == region])
        for region in range(len(counts))
    )
    return replace(found, principal=principal, beside=tuple(beside))


class _Compared(eqx.Module):
    statistics: ImageStatistics
    transfer: Float[np.ndarray, "images shells"]
    """Squared transfer function over noise, summed over every shell of the plane."""


def _compare_with_transfer(
    work: Work, whole: Homogeneous, found: Components, images: Images
) -> _Compared:
    volumes = np.concatenate([found.mean[None], found.volumes])
    compare = _comparison(work, volumes, found.radius)

    def measure(batch: ImageBatch) -> _Compared:
        batch = batch.at_radius(work.inputs.grid.size, found.radius).whitened(whole.spectra)
        return _Compared(compare(batch), batch.transfer_power())

    return work.executor.map_images("Variances along components", measure, images)


def _some_particles(particle: Int[np.ndarray, " images"]) -> Int[np.ndarray, " chosen"]:
    """Choose all images of some particles, evenly, where there are very many."""
    count = int(particle.max()) + 1
    kept = np.zeros(count, bool)
    kept[np.unique(np.linspace(0, count - 1, min(count, _MOST_PARTICLES)).astype(np.int64))] = True
    return np.flatnonzero(kept[particle])


def compare_images(work: Work, whole: Homogeneous, components: Components) -> ImageStatistics:
    """Take inner products of all images with the mean and the components, in one pass."""
    volumes = np.concatenate([components.mean[None], components.volumes])
    return compare_with_volumes(work, whole, volumes, components.radius)


def compare_with_volumes(
    work: Work, whole: Homogeneous, volumes: Float[np.ndarray, "volumes z y x"], radius: int
) -> ImageStatistics:
    """Take inner products of all images with volumes, the mean first, up to a radius."""
    compare, size = _comparison(work, volumes, radius), work.inputs.grid.size
    return work.executor.map_images(
        "Comparison with components",
        lambda batch: compare(batch.at_radius(size, radius).whitened(whole.spectra)),
        whole.images,
    )


def _comparison(
    work: Work, volumes: Float[np.ndarray, "volumes z y x"], radius: int
) -> Callable[[ImageBatch], ImageStatistics]:
    """Transform volumes once, to compare whitened images with."""
    ball = Ball(work.inputs.grid.size, radius)
    spectra = np.stack([to_ball(volume, ball) for volume in volumes], axis=1)

    def compare(batch: ImageBatch) -> ImageStatistics:
        found = image_statistics(batch, spectra, ball, work.executor.operators)
        return ImageStatistics(found.gram.astype(np.float32), found.response.astype(np.float32))

    return compare
