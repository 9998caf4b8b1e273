"""The stage of an analysis that writes the particles of every cluster as files of their own."""

import logging
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from types import NoneType

import numpy as np

from recovar.clustering import Clusters
from recovar.manifest import fingerprint
from recovar.run import Stage
from recovar.workflows.analyzing.work import Analysis
from recovar.workflows.exporting.config import ExportConfig
from recovar.workflows.exporting.images import read_run_images
from recovar.workflows.exporting.outputs import plan_files, write_files
from recovar.workflows.exporting.selection import Labels, keep_present

logger = logging.getLogger(__name__)


def write_particles_of_clusters(work: Analysis, clusters: Clusters) -> None:
    """Write cluster_000.star and so on, as `recovar export --cluster` does, and .cs files as well.

    Of a run of several files, or of stacks, rows are those of its particles.star.
    """
    sources = work.finished.config.particles
    missing = [path for path in sources if not path.exists()]
    if missing:
        logger.warning(
            "%s, which the run was made from, is not there any more, so particles of clusters are "
            "not written. `recovar export --cluster` writes them, with its place as --original.",
            missing[0],
        )
        return
    work.place.stage(
        f"{work.kmeans}/particles",
        NoneType,
        lambda stage: _write(stage, work, clusters),
        options={"files": [fingerprint(path) for path in sources]},
        depends=[f"{work.kmeans}/clusters"],
    )


def _write(stage: Stage, work: Analysis, clusters: Clusters) -> None:
    images = read_run_images(work.finished.path, work.zdim, None)
    labels = Labels(clusters.labels, work.kmeans)
    has_tables = images.original is not None and images.original.text is None
    suffixes = (".star", ".cs") if has_tables else (".star",)
    count = len(clusters.centres)
    with work.reporter.task("Particles of clusters", count, "clusters") as advance:
        for number in range(count):
            members = np.flatnonzero(clusters.labels == number)
            for suffix in suffixes:
                name = f"{work.kmeans}/cluster_{number:03d}{suffix}"
                config = ExportConfig(
                    run=work.finished.path, output=work.place.directory / name, cluster=(number,)
                )
                chosen = keep_present(config, images, members)
                write_files(plan_files(config, images, labels, chosen), partial(_open, stage))
            advance(1)


def _open(stage: Stage, path: Path) -> AbstractContextManager[Path]:
    return stage.write(path.relative_to(stage.run_path).as_posix())
