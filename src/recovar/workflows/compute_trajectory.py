"""The command `compute-trajectory`: a path between two latent points, and volumes along it."""

import logging
import time
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from recovar.compute.memory import format_bytes, peak_rss
from recovar.compute.progress import Reporter
from recovar.density.record import read_density
from recovar.manifest import fingerprint
from recovar.run import Stage
from recovar.trajectory import find_path
from recovar.workflows.finished import FinishedRun, open_finished
from recovar.workflows.state_options import follow_preset
from recovar.workflows.states import States, draw_states, make_states, reweight_names
from recovar.workflows.tracing.along import write_density_along
from recovar.workflows.tracing.config import ComputeTrajectoryConfig
from recovar.workflows.tracing.ends import find_ends
from recovar.workflows.tracing.outputs import write_path
from recovar.workflows.workplace import Workplace, open_workplace

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Waypoints:
    """Points of a path that volumes are made at."""

    points: Float64[np.ndarray, "states zdim"]


def run_compute_trajectory(config: ComputeTrajectoryConfig, reporter: Reporter) -> None:
    """Find a path between two latent points, and reconstruct volumes along it.

    Raises:
        InputError: If ends, density and run do not fit each other, or an option is impossible.
    """
    started = time.monotonic()
    finished = open_finished(config.run)
    config = follow_preset(config, finished.config.preset)
    ends = find_ends(config, finished)
    zdim = ends.shape[1]
    directory = config.output or finished.path / "output" / "compute_trajectory"
    with open_workplace(directory, config, finished, {"zdim": zdim}, reporter) as place:
        waypoints = _trace(place, config, finished, ends, reporter)
        states = place.stage(
            "states",
            States,
            lambda stage: make_states(
                finished,
                zdim,
                waypoints.points,
                config,
                reporter,
                stage.write,
                reweight_names(place.files),
            ),
            options=config.described(),
            depends=["path"],
        )
        draw_states(place, finished, states.each, "states", along_path=True)
        place.refresh_report(finished)
        logger.info(
            "Done in %.0f s with at most %s of memory. The path and %d volumes are in %s.",
            time.monotonic() - started,
            format_bytes(peak_rss()),
            len(waypoints.points),
            place.directory,
        )


def _trace(
    place: Workplace,
    config: ComputeTrajectoryConfig,
    finished: FinishedRun,
    ends: Float64[np.ndarray, "2 zdim"],
    reporter: Reporter,
) -> Waypoints:
    density = None if config.density is None else read_density(config.density)
    embedding = finished.embedding(ends.shape[1])

    def compute(stage: Stage) -> Waypoints:
        path = find_path(
            embedding.coordinates,
            ends[0],
            ends[1],
            density,
            config.method,
            embedding.covariance,
        )
        chosen = path.choose(config.n_vols)
        write_path(lambda name: stage.write(place.files + name), path, chosen)
        write_density_along(
            lambda name: stage.write(place.files + name),
            path,
            chosen,
            embedding,
            finished.inputs.particles.particle,
            reporter,
        )
        logger.info("Path of length %.4g. %s", path.arc_length[-1], path.remark)
        return Waypoints(path.points[chosen])

    return place.stage(
        "path",
        Waypoints,
        compute,
        options={
            "ends": ends,
            "density": None if config.density is None else fingerprint(config.density),
            "method": config.method,
            "volumes": config.n_vols,
        },
    )
