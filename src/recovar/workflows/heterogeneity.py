"""The stages of the pipeline that tell molecules apart: components, statistics, embeddings."""

import logging
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from recovar.compute.accumulate import Images, Prepared
from recovar.core.batch import ImageBatch
from recovar.core.frequencies import Ball
from recovar.core.volumes import to_ball
from recovar.covariance_core import centre_on, estimate_contrast
from recovar.embedding import Embedding, embed, estimate_contrast_sd
from recovar.posterior import ImageStatistics
from recovar.published_contrast import embed_published
from recovar.records import save_arrays
from recovar.run import Stage
from recovar.subspace import SubspaceOptions, estimate_subspace
from recovar.workflows.columns import fit_by_columns
from recovar.workflows.components import Components, compare_images
from recovar.workflows.exporting.latent_star import write_latent_star
from recovar.workflows.inputs import with_halves
from recovar.workflows.mean import Homogeneous, Means, make_means, write_map
from recovar.workflows.work import Work, maps_bytes

logger = logging.getLogger(__name__)

_VARIANCES = (4, 10, 20)
"""Numbers of components that maps of the variance are made of."""


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
    find = _fit_by_likelihood if config.subspace == "em" else fit_by_columns
    components = work.run.stage(
        "subspace",
        Components,
        lambda stage: find(stage, work, whole),
        options={
            "method": config.subspace,
            "columns": config.columns,
            "covariance": config.covariance,
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
        options={
            "zdim": config.zdim,
            "correct_contrast": config.correct_contrast,
            "contrast_method": config.contrast_method,
        },
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


def _embed(
    stage: Stage, work: Work, components: Components, statistics: ImageStatistics
) -> Embeddings:
    config, eigenvalues = work.config, components.principal.eigenvalues
    published = config.contrast_method == "published"
    spread = None
    if config.correct_contrast and not published:
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
        if published:
            found = embed_published(statistics, eigenvalues, zdim)
        else:
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
