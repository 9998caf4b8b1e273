"""The stage of an analysis that finds trajectories between centres of clusters."""

import logging
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from recovar.clustering import Clusters
from recovar.data.legacy import write_pickle
from recovar.density.record import Density
from recovar.manifest import fingerprint
from recovar.records import save_arrays
from recovar.run import Stage
from recovar.trajectory import find_path
from recovar.workflows.analyzing.pairs import choose_pairs
from recovar.workflows.analyzing.states import Group
from recovar.workflows.analyzing.work import Analysis
from recovar.workflows.tracing.outputs import write_path

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Routes:
    """Points of several paths that volumes are made at."""

    pairs: Int64[np.ndarray, "paths 2"]
    """Clusters at the ends."""
    points: Float64[np.ndarray, "paths states zdim"]


def find_routes(work: Analysis, clusters: Clusters, density: Density | None) -> list[Group]:
    """Find paths between pairs of centres, write what there is to tell of them.

    Args:
        work: The analysis.
        clusters: Of its images.
        density: Read from --density, if that was given.

    Returns:
        The states that are wanted along each path.
    """
    config, name = work.config, f"{work.kmeans}/paths"
    routes = work.place.stage(
        name,
        Routes,
        lambda stage: _find(stage, work, clusters, density),
        options={
            "trajectories": config.n_trajectories,
            "volumes": config.n_vols,
            "density": None if config.density is None else fingerprint(config.density),
        },
        depends=[f"{work.kmeans}/clusters"],
    )
    return [
        Group(f"{work.kmeans}/path{number}", points, name, along_path=True)
        for number, points in enumerate(routes.points)
    ]


def _find(stage: Stage, work: Analysis, clusters: Clusters, density: Density | None) -> Routes:
    centres, count = clusters.centres, work.config.n_vols
    pairs = choose_pairs(centres, work.config.n_trajectories)
    write = work.writer(stage, work.kmeans)
    with write("trajectory_endpoints.pkl") as partial:
        write_pickle(partial, {"centers": centres, "pairs": pairs})
    with write("trajectory_endpoints.npz") as partial:
        save_arrays(partial, centers=centres, pairs=pairs)
    routes = np.empty((len(pairs), count, work.zdim))
    with work.reporter.task("Paths", len(pairs), "paths") as advance:
        for number, (first, last) in enumerate(pairs):
            path = find_path(
                work.coordinates,
                centres[first],
                centres[last],
                density,
                covariance=work.embedding.covariance,
            )
            chosen = path.choose(count)
            write_path(work.writer(stage, f"{work.kmeans}/path{number}"), path, chosen)
            routes[number] = path.points[chosen]
            logger.info(
                "path%d goes from cluster %d to cluster %d. %s", number, first, last, path.remark
            )
            advance(1)
    return Routes(pairs, routes)
