"""The command `pipeline`: from images to mean, principal components and embeddings.

Every stage is a function of results of earlier ones, and is kept in the run; a run that was
stopped goes on with the first stage that is not done.
"""

import logging
import shutil
import time
from dataclasses import asdict

from recovar.compute.executors import LocalExecutor
from recovar.compute.memory import default_budget, format_bytes, parse_bytes, peak_rss
from recovar.compute.progress import Reporter
from recovar.errors import InputError
from recovar.manifest import read_manifest
from recovar.run import Run, Stage
from recovar.workflows.configs import PipelineConfig
from recovar.workflows.heterogeneity import (
    Heterogeneous,
    analyse_heterogeneity,
    make_final_means,
    write_components,
)
from recovar.workflows.inputs import read_inputs
from recovar.workflows.mean import Homogeneous, Means, analyse_mean, write_means
from recovar.workflows.work import Work

logger = logging.getLogger(__name__)


def run_pipeline(config: PipelineConfig, reporter: Reporter) -> None:
    """Estimate mean, components and embedding of particle images.

    Raises:
        InputError: If something is wrong with the options or the images. A directory made for
            the run is removed if not even its first stage was done.
    """
    started = time.monotonic()
    inputs = read_inputs(config)
    budget = parse_bytes(config.memory) if config.memory else default_budget()
    is_new = not config.output.exists()
    with Run.create_or_resume(config.output, reporter.command, asdict(config)) as run:
        try:
            reporter.log_to(run.path / "run.log")
            _run_stages(Work(config, inputs, run, LocalExecutor(progress=reporter), budget))
        except InputError:
            if is_new and not read_manifest(run.path).stages:
                shutil.rmtree(run.path)
            raise
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
        config.particles,
        format_bytes(work.budget),
    )
    whole = analyse_mean(work)
    found = None if config.only_mean else analyse_heterogeneity(work, whole)
    means = _write_volumes(work, whole, found)
    del means


def _write_volumes(work: Work, whole: Homogeneous, found: Heterogeneous | None) -> Means:
    def write(stage: Stage) -> Means:
        means = whole.means if found is None else make_final_means(work, whole, found, stage)
        write_means(stage, means, work.inputs.grid)
        if found is not None:
            write_components(stage, work, found.components)
        return means

    depends = ["mean"] if found is None else ["mean", "subspace", "embedding"]
    return work.run.stage("volumes", Means, write, depends=depends)
