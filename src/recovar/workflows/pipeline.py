"""The command `pipeline`: from images to mean, principal components and embeddings.

Every stage is a function of results of earlier ones, and is kept in the run; a run that was
stopped goes on with the first stage that is not done.
"""

import logging
import shutil
import time
from dataclasses import asdict
from types import NoneType

import numpy as np

from recovar import plots
from recovar.compute.memory import format_bytes, peak_rss
from recovar.compute.progress import Reporter
from recovar.embedding import LEAST_RELIABILITY
from recovar.errors import InputError
from recovar.manifest import read_manifest
from recovar.records import save_arrays
from recovar.regularization import resolution_at
from recovar.reproducibility import Reproducibility
from recovar.run import Run, Stage
from recovar.workflows.checking.glance import Opinion, glance
from recovar.workflows.configs import PipelineConfig
from recovar.workflows.heterogeneity import (
    Heterogeneous,
    analyse_heterogeneity,
    make_final_means,
    write_components,
)
from recovar.workflows.inputs import describe_inputs, read_inputs
from recovar.workflows.mean import LEAST_FSC, Homogeneous, Means, analyse_mean, write_means
from recovar.workflows.nuisance import audit_embedding
from recovar.workflows.picturing.run import PicturedRun, write_run_pictures
from recovar.workflows.report import write_report
from recovar.workflows.reproducibility import reproduce_components, tell_what_is_real
from recovar.workflows.work import Work, check_memory, start_work

_MOST_LINES = 12

logger = logging.getLogger(__name__)


def run_pipeline(config: PipelineConfig, reporter: Reporter) -> None:
    """Estimate mean, components and embedding of particle images.

    Raises:
        InputError: If something is wrong with the options or the images. A directory made for
            the run is removed if not even its first stage was done.
    """
    started = time.monotonic()
    inputs = read_inputs(config)
    check_memory(config, inputs.grid)
    is_new = not config.output.exists()
    with Run.create_or_resume(config.output, reporter.command, asdict(config)) as run:
        try:
            reporter.log_to(run.path / "run.log")
            _run_stages(start_work(config, inputs, run, reporter))
        except InputError:
            if is_new and not read_manifest(run.path).stages:
                shutil.rmtree(run.path)
            raise
        write_report(run.path)
        logger.info(
            "Done in %.0f s with at most %s of memory. Results are in %s, the log in %s.",
            time.monotonic() - started,
            format_bytes(peak_rss()),
            run.path / "output",
            run.path / "run.log",
        )


def _run_stages(work: Work) -> None:
    config, inputs = work.config, work.inputs
    logger.info(
        "%d images of %d pixels (%.4g Å per pixel) from %s; up to %s of memory",
        len(inputs.particles),
        inputs.grid.size,
        inputs.grid.voxel_size,
        config.source,
        format_bytes(work.budget),
    )
    if config.preset_options:
        chosen = ", ".join(f"{name} {value}" for name, value in config.preset_options.items())
        logger.info("--preset %s sets %s", config.preset, chosen)
    work.run.stage(
        "conventions",
        Opinion,
        lambda stage: _check_conventions(stage, work),
        options={**describe_inputs(config, inputs), "trust_input": config.trust_input},
    )
    whole = analyse_mean(work)
    found = None if config.only_mean else analyse_heterogeneity(work, whole)
    again = None
    if found is not None:
        audit_embedding(work, found.embeddings.largest)
        if config.reproducibility:
            again = reproduce_components(work, whole, found.components)
    depends = ["mean"] if found is None else ["mean", "subspace", "embedding"]
    means = work.run.stage(
        "volumes", Means, lambda stage: _write_volumes(stage, work, whole, found), depends=depends
    )
    work.run.stage(
        "plots",
        NoneType,
        lambda stage: _draw(stage, work, whole, means, found),
        depends=["inputs", "noise", "mask", "volumes"],
    )
    _summarize(work, means, found, again)


def _check_conventions(stage: Stage, work: Work) -> Opinion:
    """Ask some of the images whether files say the truth about poses and CTFs."""
    config = work.config
    opinion = glance(work.inputs.particles, work.executor.progress, config.seed)
    stage.decide("poses and CTFs", opinion.value, opinion.why)
    if not opinion.log10_odds:
        return opinion
    found = f"{config.source}: the images contradict the files: {opinion.value} ({opinion.why})."
    if opinion.refutes and not config.trust_input:
        raise InputError(
            f"{found} {' '.join(opinion.remedies)} `recovar check` tells more, and --trust-input "
            "goes on in spite of it."
        )
    logger.warning("%s They are used as stated.", found)
    return opinion


def _write_volumes(
    stage: Stage, work: Work, whole: Homogeneous, found: Heterogeneous | None
) -> Means:
    means = whole.means if found is None else make_final_means(stage, work, whole, found)
    write_means(stage, means, work.inputs.grid)
    if found is not None:
        write_components(stage, work, found.components)
    _write_numbers(stage, work, whole, means, found)
    return means


def _write_numbers(
    stage: Stage, work: Work, whole: Homogeneous, means: Means, found: Heterogeneous | None
) -> None:
    """Write what scripts ask for first as plain arrays, in one file."""
    grid = work.inputs.grid
    numbers = {
        "voxel_size": grid.voxel_size,
        "volume_shape": grid.volume_shape,
        "noise_variance": whole.noise.variance,
        "noise_scale": whole.spectra.scale,
        "image_power": whole.power,
        "fsc": means.plain.fsc,
        "fsc_in_mask": means.masked.fsc,
        "row": work.inputs.particles.source_row,
        "half": work.inputs.halves,
    }
    if found is not None:
        largest = found.embeddings.largest
        numbers |= {
            "eigenvalues": largest.eigenvalues,
            "reliability": largest.reliability,
            "contrast": largest.contrast,
        }
    with stage.write("model/results.npz") as partial:
        save_arrays(partial, **numbers)


def _draw(
    stage: Stage, work: Work, whole: Homogeneous, means: Means, found: Heterogeneous | None
) -> None:
    grid, mean = work.inputs.grid, means.masked.regularized
    curves = {"in the mask": means.masked.fsc, "whole box": means.plain.fsc}
    figures = {
        "fsc": plots.draw_fsc(curves, grid, LEAST_FSC),
        "noise": plots.draw_noise(whole.noise.variance, whole.power, grid),
        "mean": plots.draw_map(mean, whole.mask.mask, grid),
    }
    if found is not None:
        embedding, principal = found.embeddings.largest, found.components.principal
        figures["eigenvalues"] = plots.draw_eigenvalues(
            embedding.eigenvalues, embedding.reliability
        )
        figures["embedding"] = plots.draw_embedding(embedding.coordinates)
        figures["components"] = plots.draw_components(
            principal.volumes, principal.eigenvalues, mean, grid
        )
        if work.config.correct_contrast:
            figures["contrast"] = plots.draw_contrast(embedding.contrast)
        write_run_pictures(
            PicturedRun(
                work.run.path / "output" / "volumes",
                mean, whole.mask.mask, principal.volumes, principal.eigenvalues,
            ),
            stage.write,
        )  # fmt: skip
    for name, figure in figures.items():
        with stage.write(f"output/plots/{name}.png") as partial:
            plots.save_figure(figure, partial)


def _summarize(
    work: Work, means: Means, found: Heterogeneous | None, again: Reproducibility | None
) -> None:
    grid = work.inputs.grid
    resolutions = [resolution_at(mean.fsc, LEAST_FSC, grid) for mean in (means.masked, means.plain)]
    logger.info(
        "Mean of %d images: %.3g Å in the mask, %.3g Å in the whole box (FSC %g)",
        len(work.inputs.particles),
        *resolutions,
        LEAST_FSC,
    )
    if found is None:
        return
    embedding = found.embeddings.largest
    real = int((embedding.reliability > LEAST_RELIABILITY).sum())
    total = float(embedding.eigenvalues.sum())
    if not real:
        logger.info(
            "No component is seen in single images: nothing varies, or too little is known."
        )
    else:
        logger.info(
            "%d of %d components are seen in single images. Their share of the variance, how far "
            "images determine the coordinate, and how much of it both half sets find alone:",
            real,
            len(embedding.eigenvalues),
        )
    shared = np.zeros(0) if again is None else again.shared
    for number in range(min(real, _MOST_LINES)):
        share = embedding.eigenvalues[number] / total
        logger.info(
            "  %2d %6.1f%% %6.0f%% %7s",
            number + 1,
            100 * share,
            100 * embedding.reliability[number],
            f"{max(shared[number], 0):.0%}" if number < len(shared) else "",
        )
    if again is not None:
        tell_what_is_real(again)
    if work.config.correct_contrast:
        logger.info("Contrasts have a standard deviation of %.3f", embedding.contrast.std())
