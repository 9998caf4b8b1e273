"""The stages of the pipeline that tell molecules apart: components, statistics, embeddings."""

import functools
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from recovar.embedding import Embedding, add_up, embed, estimate_contrast_sd
from recovar.posterior import CONTRAST_LIMITS, ImageStatistics
from recovar.published_contrast import embed_published
from recovar.records import save_arrays
from recovar.run import Stage
from recovar.subspace import SubspaceOptions, estimate_subspace
from recovar.workflows.columns import fit_by_columns
from recovar.workflows.components import Components, calibrate, compare_images
from recovar.workflows.configs import PipelineConfig
from recovar.workflows.exporting.latent_star import write_latent_star
from recovar.workflows.focus import (
    Embed,
    choose_regions,
    embed_region,
    fitted_mask,
    name_regions,
)
from recovar.workflows.inputs import with_halves
from recovar.workflows.mean import Homogeneous, Means, make_means, write_map
from recovar.workflows.outliers import find_outliers
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
            "contrast_method": config.contrast_method,
            "components": max(config.zdim),
            "fitted": config.fitted_by_region,
            "correct_contrast": config.correct_contrast,
            "weigh_junk": config.weigh_junk,
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
    find_outliers(work, whole, components, statistics)
    return Heterogeneous(components, embeddings)


def _fit_by_likelihood(stage: Stage, work: Work, whole: Homogeneous) -> Components:
    config, grid = work.config, work.inputs.grid
    regions = choose_regions(work, whole)
    if len(regions) > len(config.focus_mask):
        stage.decide(
            "components outside the focus",
            regions[-1].components,
            "they keep what happens there out of the coordinates",
        )
    found = estimate_subspace(
        whole.images,
        grid,
        whole.spectra,
        fitted_mask(work, whole),
        SubspaceOptions(
            components=config.fitted_components,
            correct_contrast=config.correct_contrast,
            weigh_junk=bool(config.weigh_junk),
        ),
        work.executor,
        last_radius=whole.means.radius,
        regions=regions,
        checkpoint=stage.checkpoint("fit"),
        memory=work.room(whole.images) - maps_bytes(config, grid),
        seed=config.seed,
    )
    components = Components(
        found.mean,
        found.components.leading(max(config.zdim)),
        found.contrast_sd,
        found.heterogeneity,
        found.radius,
        tuple(
            each.leading(max(config.zdim)) if number < len(config.focus_mask) else each
            for number, each in enumerate(found.beside, 1)
        ),
    )
    return calibrate(stage, work, whole, components)


def _embed(
    stage: Stage, work: Work, components: Components, statistics: ImageStatistics
) -> Embeddings:
    config = work.config
    published = config.contrast_method == "published"
    particles, spread = work.inputs.particles, None
    particle = np.unique(particles.particle, return_inverse=True)[1]
    shared = particle.max() + 1 < len(particle)
    if shared:
        statistics = add_up(statistics, particle)
        stage.decide("embedded particles", len(statistics.gram), "their images share coordinates")
    if config.correct_contrast and not published:
        spread = estimate_contrast_sd(
            statistics, components.eigenvalues, max(components.contrast_sd, 0.05)
        )
        stage.decide("spread of contrasts", round(spread, 4), "it makes the images most likely")
    each = []
    find: Embed = embed_published if published else functools.partial(embed, contrast_sd=spread)
    for region, zdim in _choose_embeddings(config, components):
        prefix = name_regions(config)[region]
        found = embed_region(statistics, components.regions, region, zdim, find)
        if found.limited is not None:
            low, high = CONTRAST_LIMITS
            stage.decide(
                f"contrasts at a limit with {prefix}{zdim} coordinates",
                int(found.limited.sum()),
                f"contrasts are sought from {low:g} to {high:g}",
            )
        if shared:
            found = found.rows(particle)
        with stage.write(f"output/embedding/{prefix}zdim{zdim}.npz") as partial:
            save_arrays(
                partial,
                z=found.coordinates,
                covariance=found.covariance,
                z_noreg=found.coordinates_noreg,
                covariance_noreg=found.covariance_noreg,
                contrast=found.contrast,
                contrast_sd=np.zeros(len(particle), np.float32)
                if found.contrast_sd is None
                else found.contrast_sd,
                eigenvalues=found.eigenvalues,
                identity=particles.identity,
                row=particles.source_row,
            )
        if region == 0:
            each.append(found)
    with stage.write("output/particles.star") as partial:
        write_latent_star(partial, with_halves(work.inputs), each[-1])
    return Embeddings(tuple(each))


def _choose_embeddings(config: PipelineConfig, components: Components) -> Iterator[tuple[int, int]]:
    """Yield each focus, or all of the molecule, with the numbers of coordinates there."""
    for region in range(max(1, len(config.focus_mask))):
        known = len(components.regions[region].eigenvalues)
        wanted = [zdim for zdim in config.zdim if zdim <= known]
        if len(wanted) < len(config.zdim):
            logger.warning(
                "Only %d components were found, so there is no embedding with more coordinates.",
                known,
            )
        for zdim in wanted or [known]:
            yield region, zdim


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
    for prefix, region in zip(name_regions(work.config), components.regions, strict=False):
        for number, volume in enumerate(region.volumes):
            write_map(stage, f"{prefix}eigen_pos{number:03d}", volume, grid)
            write_map(stage, f"{prefix}eigen_neg{number:03d}", -volume, grid)
    for count in _VARIANCES:
        few = slice(0, count)
        variance = np.einsum("k,kzyx->zyx", principal.eigenvalues[few], principal.volumes[few] ** 2)
        write_map(stage, f"variance{count}", variance, grid)
    if components.heterogeneity is not None:
        write_map(stage, "heterogeneity_mask", components.heterogeneity, grid)
