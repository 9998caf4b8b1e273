"""Principal components from sampled columns of the covariance."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from recovar.core import fourier
from recovar.core.frequencies import Ball
from recovar.covariance import (
    ColumnOptions,
    Columns,
    choose_columns,
    estimate_columns,
    estimate_variance,
)
from recovar.covariance_core import centre_on, estimate_contrast
from recovar.pca import (
    Basis,
    basis_from_columns,
    principal_components,
    project_covariance_least_squares,
    project_covariance_likelihood,
    remove_direction,
)
from recovar.posterior import ImageStatistics
from recovar.published_contrast import most_probable_contrasts
from recovar.regularization import relevance
from recovar.run import Stage
from recovar.workflows.components import Components, compare_images, compare_with_volumes
from recovar.workflows.mean import Homogeneous, Means, make_means
from recovar.workflows.work import Work

_WEIGHTED_RANK, _PUBLISHED_RANK = 64, 200
"""Dimensions that columns of the covariance are reduced to."""
_LEAST_RANK = 20
_STATISTICS_SHARE = 3
"""Statistics of all images that are in memory at once, at most."""
_SHRINKAGE = 1.3
"""Multiple of the noise floor that variance in real space must exceed."""
_CONTRAST_COMPONENTS = 10
"""Components of the first round that contrasts are estimated with."""


@dataclass(frozen=True)
class ColumnFit:
    """One round: columns, what they span, and variances along that."""

    work: Work
    whole: Homogeneous
    stage: Stage
    mean: Float[np.ndarray, "z y x"]
    """What images are centred on."""
    contrast: Float[np.ndarray, " images"] | None = None
    """Factor on every image's signal."""
    title: str = ""
    """Of the round, for the names of its checkpoints."""

    @property
    def options(self) -> ColumnOptions:
        """How columns are regularized."""
        radius = self.whole.means.radius
        if self.work.config.columns == "published":
            return ColumnOptions(row_radius=radius, prior_factor=8.0, iterations=20, pooled=False)
        return ColumnOptions(row_radius=radius)

    def with_contrast(self) -> "ColumnFit":
        """Estimate contrasts from matches with the mean alone, in one pass."""
        whole = self.whole
        centring = centre_on(self.mean, whole.spectra, whole.means.radius)
        contrast = estimate_contrast(whole.images, centring, self.work.executor)
        return replace(self, contrast=contrast)

    def find_basis(self) -> Basis:
        """Estimate columns, and find what they span."""
        columns = self._estimate_columns()
        if self.work.config.columns == "published":
            return basis_from_columns(columns, self.affordable_rank())
        basis = basis_from_columns(columns, _WEIGHTED_RANK)
        return basis.weighted(where_it_varies(basis, self.mean, self.whole.mask.mask))

    def _estimate_columns(self) -> Columns:
        work, images, options = self.work, self.whole.images, self.options
        grid, radius = work.inputs.grid, options.row_radius
        far = min(radius + 4, grid.largest_radius)
        mask, focus = self.whole.mask, work.inputs.focus
        noise = self.whole.spectra
        centring = centre_on(self.mean, noise, far, self.contrast, mask.dilated)
        variance = estimate_variance(
            images, centring, radius, work.executor, self.stage.checkpoint(f"{self.title}variance")
        )
        frequencies = choose_columns(variance, options)
        self.stage.decide(
            "columns",
            len(frequencies),
            f"they carry most variance, within {options.last_shell} Fourier pixels and apart from "
            "each other",
        )
        # All columns, once more while their singular vectors are found, and their statistics.
        kept = 3 * 16 * len(frequencies) * len(Ball(grid.size, radius, 1))
        return estimate_columns(
            images,
            centring,
            frequencies,
            options,
            work.executor,
            mask=focus[0] if focus else mask.mask,
            memory=int(0.7 * max(0, work.room(images) - kept)),
            place=lambda name: self.stage.checkpoint(self.title + name),
        )

    def affordable_rank(self) -> int:
        """Take as many dimensions as published, or as the statistics of all images allow."""
        images = self.whole.images
        most = self.work.room(images) / (_STATISTICS_SHARE * 4 * max(len(images), 1))
        return int(np.clip(np.sqrt(most) - 1, _LEAST_RANK, _PUBLISHED_RANK))

    def compare(self, basis: Basis) -> ImageStatistics:
        """Compare images with the mean and all volumes of a basis, in one pass."""
        volumes = basis.volumes(self.work.inputs.grid.size).astype(np.float32)
        volumes = np.concatenate([self.mean[None], volumes])
        return compare_with_volumes(self.work, self.whole, volumes, self.whole.means.radius)

    def diagonalize(
        self, basis: Basis, statistics: ImageStatistics, count: int, *, without_mean: bool = False
    ) -> Components:
        """Estimate the covariance along a basis, and take its leading components.

        Args:
            basis: Orthonormal volumes.
            statistics: Of all images with the mean and the basis.
            count: Most components to keep.
            without_mean: Take the mean out of them, which contrasts would add.
        """
        contrast, radius = self.contrast, self.whole.means.radius
        covariance = project(statistics, contrast, self.work.config.covariance)
        self.stage.decide("dimensions", len(covariance), "columns are reduced to so many")
        if without_mean:
            basis, covariance = remove_direction(basis, covariance, self._mean_in(basis))
        size = self.work.inputs.grid.size
        principal = principal_components(basis, covariance, size, count)
        spread = 0.0 if contrast is None else float(np.std(contrast))
        return Components(self.mean, principal, spread, None, radius)

    def _mean_in(self, basis: Basis) -> np.ndarray:
        focus = self.work.inputs.focus
        mean = self.whole.means.masked.regularized * (focus[0] if focus else 1)
        return basis.ball.from_cube(fourier.to_spectrum(mean)[..., None])[:, 0]


def fit_by_columns(stage: Stage, work: Work, whole: Homogeneous) -> Components:
    """Find principal components from columns, with contrasts where they are wanted."""
    return finish_fit(ColumnFit(work, whole, stage, _choose_mean(work, whole.means)))


def _choose_mean(work: Work, means: Means) -> Float[np.ndarray, "z y x"]:
    masked = means.masked
    return masked.volume if work.config.columns == "published" else masked.regularized


def finish_fit(fit: ColumnFit) -> Components:
    """Estimate contrasts, where they are wanted, and then the components."""
    config = fit.work.config
    if config.correct_contrast:
        published = config.contrast_method == "published"
        fit = _with_published_contrasts(fit) if published else fit.with_contrast()
    basis = fit.find_basis()
    return fit.diagonalize(basis, fit.compare(basis), max(config.zdim))


def _with_published_contrasts(fit: ColumnFit) -> ColumnFit:
    """Run a round without contrasts, the mean taken out of its components, to estimate them."""
    first = replace(fit, title="first ")
    basis = first.find_basis()
    components = first.diagonalize(
        basis, first.compare(basis), _CONTRAST_COMPONENTS, without_mean=True
    )
    work, whole = fit.work, fit.whole
    statistics = compare_images(work, whole, components)
    contrast = most_probable_contrasts(statistics, components.principal.eigenvalues)
    contrast = contrast / contrast.mean()
    means = make_means(
        work, whole.images, whole.spectra, whole.mask, contrast, fit.stage.checkpoint("mean")
    )
    return replace(fit, mean=_choose_mean(work, means), contrast=contrast)


def project(
    statistics: ImageStatistics, contrast: Float[np.ndarray, " images"] | None, method: str | None
) -> Float[np.ndarray, "pcs pcs"]:
    """Estimate the covariance of coordinates along the volumes that images were compared with.

    Args:
        statistics: Inner products with the mean (first) and the volumes.
        contrast: Factor on every image's signal; None means 1.
        method: `likelihood` or `least-squares`.
    """
    a = np.ones(len(statistics.gram)) if contrast is None else contrast
    projections = a[:, None] * (statistics.response[:, 1:] - a[:, None] * statistics.gram[:, 1:, 0])
    grams = (a[:, None, None] ** 2 * statistics.gram[:, 1:, 1:]).astype(np.float32)
    estimate: Callable[..., Float[np.ndarray, "pcs pcs"]] = (
        project_covariance_likelihood
        if method == "likelihood"
        else project_covariance_least_squares
    )
    return estimate(projections.astype(np.float32), grams)


def where_it_varies(
    basis: Basis, mean: Float[np.ndarray, "z y x"], mask: Float[np.ndarray, "z y x"]
) -> Float[np.ndarray, "z y x"]:
    """Learn from the columns where the molecule varies, as the fit by likelihood does."""
    volumes = basis.volumes(len(mean)).astype(np.float32)
    variance = np.einsum("k,kzyx->zyx", basis.singular_values**2, volumes**2)
    return relevance(variance.astype(np.float32), mean, mask, _SHRINKAGE).astype(np.float32)
