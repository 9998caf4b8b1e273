"""What every way to find principal components ends with, and how images are compared with it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from recovar.core.batch import ImageBatch
from recovar.core.frequencies import Ball
from recovar.core.volumes import to_ball
from recovar.pca import PrincipalComponents
from recovar.posterior import ImageStatistics, image_statistics
from recovar.workflows.mean import Homogeneous
from recovar.workflows.work import Work


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


def compare_images(work: Work, whole: Homogeneous, components: Components) -> ImageStatistics:
    """Take inner products of all images with the mean and the components, in one pass."""
    volumes = np.concatenate([components.mean[None], components.volumes])
    return compare_with_volumes(work, whole, volumes, components.radius)


def compare_with_volumes(
    work: Work, whole: Homogeneous, volumes: Float[np.ndarray, "volumes z y x"], radius: int
) -> ImageStatistics:
    """Take inner products of all images with volumes, the mean first, up to a radius."""
    noise, operators = whole.spectra, work.executor.operators
    ball = Ball(work.inputs.grid.size, radius)
    spectra = np.stack([to_ball(volume, ball) for volume in volumes], axis=1)

    def compare(batch: ImageBatch) -> ImageStatistics:
        batch = batch.at_radius(ball.size, ball.radius).whitened(noise)
        found = image_statistics(batch, spectra, ball, operators)
        return ImageStatistics(found.gram.astype(np.float32), found.response.astype(np.float32))

    return work.executor.map_images("Comparison with components", compare, whole.images)
