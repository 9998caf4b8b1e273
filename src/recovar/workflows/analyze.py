"""The command `analyze`: clusters, maps, states and trajectories of an embedding.

Every part is a stage of the run, so that a second call with the same options repeats nothing.
"""

import logging
import time

from recovar.compute.memory import format_bytes, peak_rss
from recovar.compute.progress import Reporter
from recovar.density.record import Density, read_density
from recovar.errors import InputError
from recovar.workflows.analyzing.clusters import (
    divide_images,
    draw_latent_space,
    draw_on_the_map,
    map_images,
)
from recovar.workflows.analyzing.config import AnalyzeConfig
from recovar.workflows.analyzing.particles import write_particles_of_clusters
from recovar.workflows.analyzing.paths import find_routes
from recovar.workflows.analyzing.states import Group, reconstruct
from recovar.workflows.analyzing.work import Analysis
from recovar.workflows.finished import FinishedRun, open_finished
from recovar.workflows.state_options import follow_preset
from recovar.workflows.workplace import open_workplace

logger = logging.getLogger(__name__)


def run_analyze(config: AnalyzeConfig, reporter: Reporter) -> None:
    """Divide and map the images of a run, and reconstruct states and trajectories.

    Raises:
        InputError: If the run has no such embedding, or an option does not fit it.
    """
    started = time.monotonic()
    finished = open_finished(config.run)
    config = follow_preset(config, finished.config.preset)
    zdim = _choose_zdim(config, finished)
    embedding = finished.embedding(zdim)
    density = None if config.density is None else read_density(config.density)
    directory = config.output or finished.path / "output" / f"analysis_{zdim}"
    with open_workplace(directory, config, finished, {"zdim": zdim}, reporter) as place:
        work = Analysis(config, finished, embedding, place, reporter)
        logger.info("%d images with %d coordinates, from %s", len(embedding), zdim, embedding.file)
        _run_stages(work, density)
        place.refresh_report(finished)
        logger.info(
            "Done in %.0f s with at most %s of memory. Results are in %s, those of clusters in %s.",
            time.monotonic() - started,
            format_bytes(peak_rss()),
            place.directory,
            place.directory / work.kmeans,
        )


def _choose_zdim(config: AnalyzeConfig, finished: FinishedRun) -> int:
    if config.zdim is not None:
        return config.zdim
    zdim, *others = finished.zdims
    if others:
        raise InputError(
            f"{config.run} has several embeddings. Choose one with --zdim, of "
            f"{', '.join(map(str, finished.zdims))} coordinates."
        )
    return zdim


def _run_stages(work: Analysis, density: Density | None) -> None:
    clusters = divide_images(work)
    draw_latent_space(work)
    plane = map_images(work)
    if plane is not None:
        draw_on_the_map(work, plane, clusters)
    write_particles_of_clusters(work, clusters)
    groups = find_routes(work, clusters, density)
    if not work.config.skip_centers:
        groups.insert(0, Group(work.kmeans, clusters.centres, f"{work.kmeans}/clusters"))
    if groups:
        reconstruct(work, groups)
