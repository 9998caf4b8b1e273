"""Stages of an analysis that divide images and map them: files and pictures of both."""

import itertools
import logging
from dataclasses import dataclass
from types import NoneType

import numpy as np
from jaxtyping import Float32, Float64

from recovar.cluster_plots import draw_centres, draw_clusters, draw_sizes
from recovar.clustering import Clusters, cluster, map_to_plane, why_no_map
from recovar.plots import draw_embedding
from recovar.run import Stage
from recovar.workflows.analyzing.work import Analysis, Write, write_array_twins, write_figure

_DRAWN_AXES = 3
"""Coordinates that are drawn against each other."""
_ON_THE_MAP = ("UMAP 1", "UMAP 2")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plane:
    """A map of the images to look at."""

    coordinates: Float32[np.ndarray, "images 2"]


def map_images(work: Analysis) -> Plane | None:
    """Map the images to a plane by UMAP, unless there are reasons not to."""
    if work.config.skip_umap:
        return None
    reason = why_no_map(work.coordinates)
    if reason is not None:
        logger.warning("No map by UMAP is made: %s.", reason)
        return None

    def compute(stage: Stage) -> Plane:
        images = len(work.embedding)
        with work.reporter.task("Map by UMAP", images) as advance:
            plane = Plane(map_to_plane(work.coordinates, work.config.seed, advance))
        write = work.writer(stage)
        write_array_twins(write, "umap_embedding", plane.coordinates)
        write_figure(write, "umap", draw_embedding(plane.coordinates, _ON_THE_MAP))
        return plane

    return work.place.stage("umap", Plane, compute, options={"seed": work.config.seed})


def draw_latent_space(work: Analysis) -> None:
    """Draw the density of images along the first coordinates."""

    def compute(stage: Stage) -> None:
        for axes in _pairs_of_axes(work.zdim):
            figure = draw_embedding(work.coordinates[:, axes], _names(axes))
            write_figure(work.writer(stage), f"pca_{_digits(axes)}", figure)

    work.place.stage("pca", NoneType, compute, options={})


def divide_images(work: Analysis) -> Clusters:
    """Divide the images by k-means."""
    config = work.config

    def compute(stage: Stage) -> Clusters:
        with work.reporter.task("K-means", len(work.embedding)) as advance:
            clusters = cluster(
                work.coordinates, config.n_clusters, config.seed, normalize=config.normalize_kmeans
            )
            advance(len(work.embedding))
        write = work.writer(stage, work.kmeans)
        _write_clusters(write, clusters)
        write_figure(write, "cluster_sizes", draw_sizes(clusters.sizes))
        for axes in _pairs_of_axes(work.zdim):
            points = work.coordinates[:, axes]
            _draw(write, _digits(axes), points, clusters, _names(axes), config.seed)
        return clusters

    clusters = work.place.stage(
        f"{work.kmeans}/clusters",
        Clusters,
        compute,
        options={
            "clusters": config.n_clusters,
            "normalize": config.normalize_kmeans,
            "seed": config.seed,
        },
    )
    sizes = clusters.sizes
    logger.info(
        "%d clusters of %d images: the smallest has %d, the median %d, the largest %d",
        len(sizes),
        sizes.sum(),
        sizes.min(),
        np.median(sizes),
        sizes.max(),
    )
    return clusters


def draw_on_the_map(work: Analysis, plane: Plane, clusters: Clusters) -> None:
    """Draw the clusters on the map of UMAP."""

    def compute(stage: Stage) -> None:
        points = plane.coordinates.astype(np.float64)
        write = work.writer(stage, work.kmeans)
        _draw(write, "umap", points, clusters, _ON_THE_MAP, work.config.seed)

    depends = ["umap", f"{work.kmeans}/clusters"]
    work.place.stage(f"{work.kmeans}/map", NoneType, compute, options={}, depends=depends)


def _write_clusters(write: Write, clusters: Clusters) -> None:
    write_array_twins(write, "labels", clusters.labels)
    write_array_twins(write, "centers", clusters.centres)
    with write("centers.txt") as partial:
        np.savetxt(partial, clusters.centres, fmt="%.9g")
    sizes = clusters.sizes
    table = np.column_stack([np.arange(len(sizes)), sizes, 100 * sizes / sizes.sum()])
    with write("cluster_sizes.txt") as partial:
        np.savetxt(partial, table, fmt=("%d", "%d", "%.2f"), header="cluster images percent")


def _draw(
    write: Write,
    where: str,
    points: Float64[np.ndarray, "images axes"],
    clusters: Clusters,
    names: tuple[str, str],
    seed: int,
) -> None:
    """Draw centres with and without their numbers, and images in the colours of their clusters."""
    centres = points[clusters.images]
    for suffix, annotate in (("", True), ("no_annotate", False)):
        figure = draw_centres(points, centres, names, annotate=annotate)
        write_figure(write, f"centers_{where}{suffix}", figure)
    if points.shape[1] == 2:
        write_figure(
            write, f"clusters_{where}", draw_clusters(points, clusters.labels, names, seed)
        )


def _pairs_of_axes(zdim: int) -> list[list[int]]:
    """List what is drawn: pairs of the first coordinates, or the only one."""
    if zdim == 1:
        return [[0]]
    return [list(pair) for pair in itertools.combinations(range(min(zdim, _DRAWN_AXES)), 2)]


def _digits(axes: list[int]) -> str:
    return "".join(map(str, axes))


def _names(axes: list[int]) -> tuple[str, str]:
    """Name axes from 1; the second name is not used if there is one axis only."""
    return f"coordinate {axes[0] + 1}", f"coordinate {axes[-1] + 1}"
