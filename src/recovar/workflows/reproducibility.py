"""The stage of the pipeline that looks for components in either half of the images alone."""

import logging
from pathlib import Path

import numpy as np

from recovar import plots, trust_plots
from recovar.core.frequencies import Disc
from recovar.core.halves import Halves
from recovar.held_out import LEVEL
from recovar.reproducibility import (
    LEAST_CONFIRMED,
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
    fits = fit_halves(
        whole.images,
        grid,
        whole.spectra,
        fitted_mask(work, whole),
        fit,
        work.executor,
        Halves(stage.checkpoint("first half"), stage.checkpoint("second half")),
    )
    volumes = components.principal.volumes[: fit.subspace.components]
    found = compare_halves(volumes, fits, fit.radius, config.seed)
    names = ", ".join(str(k + 1) for k in np.flatnonzero(found.real)) or "none"
    stage.decide(
        "real components",
        f"{int(found.real.sum())} of {len(found.shared)} ({names})",
        f"half sets that are fitted apart, to {grid.resolution(fit.radius):.3g} Å, share what no "
        f"more than {LEVEL:.0%} of noise would, and {LEAST_CONFIRMED:.0%} of them by components "
        "that make images of the other half likelier",
    )
    with stage.write("output/reproducibility.txt") as partial:
        _write_table(partial, found, grid.resolution(fit.radius))
    with stage.write("output/plots/reproducibility.png") as partial:
        plots.save_figure(trust_plots.draw_reproducibility(found), partial)
    return found


def tell_what_is_real(found: Reproducibility) -> None:
    """Log which components can be believed in, and what to do if none can."""
    if not found.real.any():
        logger.info(
            "No component is real: what half sets find alone does not agree, or tells nothing of "
            "the other half's images. Do not read anything into coordinates and states. Where "
            "molecules do move, more images, --focus-mask or a coarser --downsample may show it."
        )
        return
    numbers = ", ".join(str(k + 1) for k in np.flatnonzero(found.real))
    logger.info(
        "suggested zdim %d: of %d components these are found in both half sets and confirmed by "
        "images held out: %s",
        found.suggested_zdim,
        len(found.real),
        numbers,
    )


def _write_table(path: Path, found: Reproducibility, resolution: float) -> None:
    """Write what is known of each component, one line for each."""
    count = len(found.shared)
    gains = np.full((2, count), np.nan)
    known = min(count, len(found.gains.mean))
    gains[:, :known] = found.gains.mean[:known], found.gains.error[:known]
    columns = [
        np.arange(1, count + 1), found.real, found.shared, found.null, found.chance,
        found.confirmed, found.first, found.second, found.variance, *gains,
    ]  # fmt: skip
    np.savetxt(
        path,
        np.stack(columns, axis=1),
        ["%9d", "%4d", *7 * ["%10.3f"], *2 * ["%14.4g"]],
        header=f"to {resolution:.3g} Å; suggested zdim {found.suggested_zdim}\n"
        "component real shared 99_%_of_noise chance confirmed in_half_1 in_half_2 "
        "held_out_variance held_out_gain its_error",
        encoding="utf-8",
    )
