"""The stages of the pipeline that tell molecules apart: components, statistics, embeddings."""

import logging
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from recovar.compute.accumulate import Images, Prepared
from recovar.core.batch import ImageBatch
from recovar.core.frequencies import Ball
from recovar.core.volumes import to_ball
from recovar.covariance import (
    ColumnOptions,
    choose_columns,
    estimate_columns,
    estimate_variance,
)
from recovar.covariance_core import centre_on, estimate_contrast
from recovar.embedding import Embedding, embed, estimate_contrast_sd
from recovar.pca import (
    Basis,
    PrincipalComponents,
    basis_from_columns,
    principal_components,
    project_covariance_likelihood,
)
from recovar.posterior import ImageStatistics, image_statistics
from recovar.records import save_arrays
from recovar.regularization import relevance
from recovar.run import Stage
from recovar.subspace import SubspaceOptions, estimate_subspace
from recovar.workflows.exporting.latent_star import write_latent_star
from recovar.workflows.inputs import with_halves
from recovar.workflows.mean import Homogeneous, Means, make_means, write_map
from recovar.workflows.work import Work, maps_bytes

logger = logging.getLogger(__name__)

_BASIS_RANK = 64
"""Dimensions that columns of the covariance are reduced to."""
_SHRINKAGE = 1.3
"""Multiple of the noise floor that variance in real space must exceed."""
_VARIANCES = (4, 10, 20)
"""Numbers of components that maps of the variance are made of."""


@dataclass(frozen=True)
class Components:
    """Principal components, however they were found."""

    mean: Float[np.ndarray, "z y x"]
    """Where coordinates count from."""
    principal: PrincipalComponents
    contrast_sd: float
    """Spread of contrasts about 1; 0 where contrast is not estimated."""
    heterogeneity: Float[np.ndarray, "z y x"] | None
    """Where the molecule varies, where that was learned."""
    radius: int
    """Largest frequency used, in Fourier pixels."""


@dataclass(frozen=True)
class Embeddings:
    """One embedding per number of coordinates, ascending."""

    each: tuple[Embedding, ...]

    @property
    def largest(self) -> Embedding:
        """The one with most coordinates."""
        return self.each[-1]


@dataclass(frozen=True)
class Heterogeneous:
    """All that is known of how molecules differ."""

    components: Components
    embeddings: Embeddings


def analyse_heterogeneity(work: Work, whole: Homogeneous) -> Heterogeneous:
    """Run the stages from the mean to the embeddings."""
    config = work.config
    find = _fit_by_likelihood if config.subspace == "em" else _fit_by_columns
    components = work.run.stage(
        "subspace",
        Components,
        lambda stage: find(stage, work, whole),
        options={
            "method": config.subspace,
            "components": max(config.zdim),
            "fitted": config.fitted_components,
            "correct_contrast": config.correct_contrast,
            "seed": config.seed,
        },
        depends=["mean", "noise_spectra", "mask"],
    )
    statistics = work.run.stage(
        "statistics",
        ImageStatistics,
        lambda _: compare_images(work, whole, components),
        depends=["subspace", "noise_spectra"],
    )
    embeddings = work.run.stage(
        "embedding",
        Embeddings,
        lambda stage: _embed(stage, work, components, statistics),
        options={"zdim": config.zdim, "correct_contrast": config.correct_contrast},
        depends=["statistics", "subspace"],
    )
    return Heterogeneous(components, embeddings)


@dataclass(frozen=True)
class Subject:
    """What is fitted by likelihood: all of the molecule, or the part in focus."""

    images: Images
    """Without the rest."""
    region: Float[np.ndarray, "z y x"]
    """Where density may be, between 0 and 1."""
    rest: Float[np.ndarray, "z y x"] | np.float32
    """What is not fitted."""


def choose_subject(work: Work, whole: Homogeneous) -> Subject:
    """Take what is out of focus out of the images, where a focus was asked for."""
    mask, focus = whole.mask, work.inputs.focus
    region = np.ones_like(mask.mask) if work.config.solvent == "none" else mask.dilated
    if focus is None:
        return Subject(whole.images, region, np.float32(0))
    rest = whole.means.masked.regularized * (1 - np.clip(focus, 0, 1))
    return Subject(_subtract(work, whole, rest), region * np.clip(focus, 0, 1), rest)


def _fit_by_likelihood(stage: Stage, work: Work, whole: Homogeneous) -> Components:
    config, grid = work.config, work.inputs.grid
    subject = choose_subject(work, whole)
    found = estimate_subspace(
        subject.images,
        grid,
        whole.spectra,
        subject.region,
        SubspaceOptions(
            components=config.fitted_components,
            correct_contrast=config.correct_contrast,
        ),
        work.executor,
        last_radius=whole.means.radius,
        checkpoint=stage.checkpoint("fit"),
        memory=work.room(whole.images) - maps_bytes(config, grid),
        seed=config.seed,
    )
    return Components(
        found.mean + subject.rest,
        found.components.leading(max(config.zdim)),
        found.contrast_sd,
        found.heterogeneity,
        found.radius,
    )


def _subtract(work: Work, whole: Homogeneous, volume: Float[np.ndarray, "z y x"]) -> Prepared:
    """Take what a volume shows out of the images, so that the rest can be fitted alone."""
    radius = whole.means.radius
    ball = Ball(work.inputs.grid.size, radius)
    values = to_ball(volume, ball)[:, None]
    contrast = np.ones(len(whole.images))
    if work.config.correct_contrast:
        centring = centre_on(whole.means.masked.regularized, whole.spectra, radius)
        contrast = estimate_contrast(whole.images, centring, work.executor)

    def subtract(batch: ImageBatch) -> ImageBatch:
        batch = batch.at_radius(ball.size, radius)
        slices = work.executor.operators.slice_volumes(values, batch.rotations, batch.disc, ball)
        shown = contrast[batch.rows, None] * batch.transfer * np.asarray(slices)[..., 0]
        return replace(batch, values=(batch.values - shown).astype(np.complex64))

    return Prepared(whole.images, subtract)


def _fit_by_columns(stage: Stage, work: Work, whole: Homogeneous) -> Components:
    config, radius = work.config, whole.means.radius
    mean, noise, mask = whole.means.masked.regularized, whole.spectra, whole.mask
    contrast = None
    if config.correct_contrast:
        contrast = estimate_contrast(whole.images, centre_on(mean, noise, radius), work.executor)
    options = ColumnOptions(row_radius=radius)
    far = min(radius + 4, work.inputs.grid.largest_radius)
    centring = centre_on(mean, noise, far, contrast, mask.dilated)
    variance = estimate_variance(
        whole.images, centring, radius, work.executor, stage.checkpoint("variance")
    )
    frequencies = choose_columns(variance, options)
    stage.decide(
        "columns",
        len(frequencies),
        f"they carry most variance, within {options.last_shell} Fourier pixels and apart from "
        "each other",
    )
    focus = work.inputs.focus
    # All columns, once more while their singular vectors are found, and their statistics.
    kept = 3 * 16 * len(frequencies) * len(Ball(work.inputs.grid.size, radius, 1))
    columns = estimate_columns(
        whole.images,
        centring,
        frequencies,
        options,
        work.executor,
        mask=mask.mask if focus is None else focus,
        memory=int(0.7 * max(0, work.room(whole.images) - kept)),
        place=stage.checkpoint,
    )
    basis = basis_from_columns(columns, _BASIS_RANK)
    basis = basis.weighted(_where_it_varies(basis, mean, mask.mask))
    return _fit_in_basis(stage, work, whole, basis, contrast)


def _where_it_varies(
    basis: Basis, mean: Float[np.ndarray, "z y x"], mask: Float[np.ndarray, "z y x"]
) -> Float[np.ndarray, "z y x"]:
    """Learn from the columns where the molecule varies, as the fit by likelihood does."""
    volumes = basis.volumes(len(mean)).astype(np.float32)
    variance = np.einsum("k,kzyx->zyx", basis.singular_values**2, volumes**2)
    return relevance(variance.astype(np.float32), mean, mask, _SHRINKAGE).astype(np.float32)


def _fit_in_basis(
    stage: Stage,
    work: Work,
    whole: Homogeneous,
    basis: Basis,
    contrast: Float[np.ndarray, " images"] | None,
) -> Components:
    """Estimate the covariance along a basis by maximum likelihood, and diagonalize it."""
    grid, mean = work.inputs.grid, whole.means.masked.regularized
    volumes = basis.volumes(grid.size).astype(np.float32)
    statistics = _compare(work, whole, np.concatenate([mean[None], volumes]), whole.means.radius)
    a = np.ones(len(statistics.gram)) if contrast is None else contrast
    projections = a[:, None] * (statistics.response[:, 1:] - a[:, None] * statistics.gram[:, 1:, 0])
    grams = (a[:, None, None] ** 2 * statistics.gram[:, 1:, 1:]).astype(np.float32)
    covariance = project_covariance_likelihood(projections.astype(np.float32), grams)
    principal = principal_components(basis, covariance, grid.size, max(work.config.zdim))
    spread = 0.0 if contrast is None else float(np.std(contrast))
    stage.decide("dimensions", len(covariance), "columns span this many directions at most")
    return Components(mean, principal, spread, None, whole.means.radius)


def compare_images(work: Work, whole: Homogeneous, components: Components) -> ImageStatistics:
    """Take inner products of all images with the mean and the components, in one pass."""
    volumes = np.concatenate([components.mean[None], components.principal.volumes])
    return _compare(work, whole, volumes, components.radius)


def _compare(
    work: Work, whole: Homogeneous, volumes: Float[np.ndarray, "volumes z y x"], radius: int
) -> ImageStatistics:
    noise, operators = whole.spectra, work.executor.operators
    ball = Ball(work.inputs.grid.size, radius)
    spectra = np.stack([to_ball(volume, ball) for volume in volumes], axis=1)

    def compare(batch: ImageBatch) -> ImageStatistics:
        batch = batch.at_radius(ball.size, ball.radius).whitened(noise)
        found = image_statistics(batch, spectra, ball, operators)
        return ImageStatistics(found.gram.astype(np.float32), found.response.astype(np.float32))

    return work.executor.map_images("Comparison with components", compare, whole.images)


def _embed(
    stage: Stage, work: Work, components: Components, statistics: ImageStatistics
) -> Embeddings:
    config, eigenvalues = work.config, components.principal.eigenvalues
    spread = None
    if config.correct_contrast:
        spread = estimate_contrast_sd(statistics, eigenvalues, max(components.contrast_sd, 0.05))
        stage.decide("spread of contrasts", round(spread, 4), "it makes the images most likely")
    wanted = [zdim for zdim in config.zdim if zdim <= len(eigenvalues)]
    if len(wanted) < len(config.zdim):
        logger.warning(
            "Only %d components were found, so there is no embedding with more coordinates.",
            len(eigenvalues),
        )
        wanted = wanted or [len(eigenvalues)]
    particles = work.inputs.particles
    each = []
    for zdim in wanted:
        found = embed(statistics, eigenvalues, zdim, spread)
        with stage.write(f"output/embedding/zdim{zdim}.npz") as partial:
            save_arrays(
                partial,
                z=found.coordinates,
                covariance=found.covariance,
                z_noreg=found.coordinates_noreg,
                covariance_noreg=found.covariance_noreg,
                contrast=found.contrast,
                eigenvalues=found.eigenvalues,
                identity=particles.identity,
                row=particles.source_row,
            )
        each.append(found)
    with stage.write("output/particles.star") as partial:
        write_latent_star(partial, with_halves(work.inputs), each[-1])
    return Embeddings(tuple(each))


def make_final_means(stage: Stage, work: Work, whole: Homogeneous, found: Heterogeneous) -> Means:
    """Reconstruct the mean again with the contrasts, where they were estimated."""
    if not work.config.correct_contrast:
        return whole.means
    contrast = found.embeddings.largest.contrast.astype(np.float64)
    contrast /= contrast.mean()
    return make_means(
        work, whole.images, whole.spectra, whole.mask, contrast, stage.checkpoint("sums")
    )


def write_components(stage: Stage, work: Work, components: Components) -> None:
    """Write components of both signs, maps of the variance, and where the molecule varies."""
    grid, principal = work.inputs.grid, components.principal
    for number, volume in enumerate(principal.volumes):
        write_map(stage, f"eigen_pos{number:03d}", volume, grid)
        write_map(stage, f"eigen_neg{number:03d}", -volume, grid)
    for count in _VARIANCES:
        few = slice(0, count)
        variance = np.einsum("k,kzyx->zyx", principal.eigenvalues[few], principal.volumes[few] ** 2)
        write_map(stage, f"variance{count}", variance, grid)
    if components.heterogeneity is not None:
        write_map(stage, "heterogeneity_mask", components.heterogeneity, grid)
