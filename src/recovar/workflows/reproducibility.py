"""The stage of the pipeline that looks for components in either half of the images alone."""

import logging

import numpy as np

from recovar import plots, trust_plots
from recovar.core.frequencies import Disc
from recovar.core.halves import Halves
from recovar.reproducibility import (
    LEAST_SHARED,
    HalfFit,
    Reproducibility,
    compare_halves,
    fit_halves,
)
from recovar.run import Stage
from recovar.workflows.components import Components
from recovar.workflows.focus import choose_regions, fitted_mask
from recovar.workflows.mean import Homogeneous
from recovar.workflows.work import Work

logger = logging.getLogger(__name__)

_MOST_IMAGES = 50_000
_LEAST_IMAGES = 50
"""Of a half set that is fitted alone."""
_COPIES = 2
"""Of the images that are kept, while they are put together."""


def reproduce_components(
    work: Work, whole: Homogeneous, components: Components
) -> Reproducibility | None:
    """Run the stage; nothing is known where a half set has hardly any images."""
    fit = _plan(work, whole)
    counts = np.bincount(work.inputs.halves[fit.draw_images()], minlength=2)
    if counts.min() < _LEAST_IMAGES:
        logger.info("Half sets of %d and %d images are not fitted apart", *counts)
        return None
    return work.run.stage(
        "reproducibility",
        Reproducibility,
        lambda stage: _reproduce(stage, work, whole, components, fit),
        options={
            "fitted": work.config.fitted_by_region,
            "correct_contrast": work.config.correct_contrast,
            "seed": work.config.seed,
        },
        depends=["mean", "noise_spectra", "mask", "subspace"],
    )


def _plan(work: Work, whole: Homogeneous) -> HalfFit:
    config = work.config
    fit = HalfFit(
        particle=work.inputs.particles.particle,
        components=config.fitted_components,
        last_radius=whole.means.radius,
        correct_contrast=config.correct_contrast,
        most_images=_MOST_IMAGES,
        seed=config.seed,
        regions=choose_regions(work, whole),
    )
    size = work.inputs.grid.at_radius(fit.radius).size
    bytes_per_image = _COPIES * 12 * len(Disc(size, fit.radius))
    return fit.with_at_most(work.room(whole.images) // bytes_per_image)


def _reproduce(
    stage: Stage, work: Work, whole: Homogeneous, components: Components, fit: HalfFit
) -> Reproducibility:
    grid, config = work.inputs.grid, work.config
    if fit.most_images < len(whole.images):
        logger.info("Half sets: %d of the %d images are used", fit.most_images, len(whole.images))
    halves = fit_halves(
        whole.images,
        grid,
        whole.spectra,
        fitted_mask(work, whole),
        fit,
        work.executor,
        Halves(stage.checkpoint("first half"), stage.checkpoint("second half")),
    )
    volumes = components.principal.volumes[: fit.subspace.components]
    found = compare_halves(volumes, halves, fit.radius, config.seed)
    names = ", ".join(str(k + 1) for k in np.flatnonzero(found.reproducible)) or "none"
    stage.decide(
        "reproducible components",
        f"{int(found.reproducible.sum())} of {len(found.shared)} ({names})",
        f"half sets that are fitted apart, to {grid.resolution(fit.radius):.3g} Å, share more than "
        f"{LEAST_SHARED:.0%} of them, and more than noise would",
    )
    with stage.write("output/reproducibility.txt") as partial:
        table = [found.shared, found.null, found.first, found.second]
        np.savetxt(
            partial,
            np.stack([np.arange(1, len(found.shared) + 1), *table], axis=1),
            ["%9d", *4 * ["%12.3f"]],
            header=f"to {grid.resolution(fit.radius):.3g} Å\n"
            "component  shared  95_%_of_noise  in_half_1  in_half_2",
            encoding="utf-8",
        )
    with stage.write("output/plots/reproducibility.png") as partial:
        plots.save_figure(trust_plots.draw_reproducibility(found), partial)
    return found
