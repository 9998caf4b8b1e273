"""Clusters of images in latent space, and maps of it in two dimensions to look at.

Neither is a statement about the molecule: k-means divides a continuous motion as readily as
distinct states, and UMAP keeps neighbours together but no distances.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64
from scipy.cluster.hierarchy import leaves_list, linkage
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from recovar.errors import InputError

_RESTARTS = 5
"""Starts of k-means; the division with the smallest sum of squares is kept."""
_ITERATIONS = 100
_NEIGHBOURS = 15
_LEAST_IMAGES = 10
"""For a map; fewer images have no neighbourhoods."""
MOST_FITTED = 100_000
"""Images that make a map; more are placed in it."""
_PLACED_AT_ONCE = 50_000


@dataclass(frozen=True)
class Clusters:
    """A division of images; clusters that lie near to each other have numbers that do."""

    centres: Float64[np.ndarray, "clusters zdim"]
    """Coordinates of the image in the middle of each cluster."""
    images: Int64[np.ndarray, " clusters"]
    """Which image that is."""
    labels: Int64[np.ndarray, " images"]
    """Cluster of every image, from 0."""

    @property
    def sizes(self) -> Int64[np.ndarray, " clusters"]:
        """Number of images in each cluster."""
        return np.bincount(self.labels, minlength=len(self.centres))


def cluster(
    coordinates: Float[np.ndarray, "images zdim"],
    clusters: int,
    seed: int,
    *,
    normalize: bool = False,
) -> Clusters:
    """Divide images by k-means.

    The centre of a cluster is the image of it that is nearest to its mean, so that it lies where
    images are. Clusters are ordered as the leaves of a tree that joins the nearest ones first.
    The number of threads changes nothing.

    Args:
        coordinates: Latent coordinates.
        clusters: How many clusters to make.
        seed: Of the starts of k-means.
        normalize: Divide every coordinate by its standard deviation before distances are taken.

    Raises:
        InputError: If there are fewer distinct points than clusters.

    Example:
        >>> found = cluster(np.array([[0.0], [9.0], [0.2], [5.0], [0.1]]), 3, seed=0)
        >>> found.labels.tolist(), found.centres.ravel().tolist(), found.sizes.tolist()
        ([0, 2, 0, 1, 0], [0.1, 5.0, 9.0], [3, 1, 1])
    """
    distinct = len(np.unique(coordinates, axis=0))
    if not 1 <= clusters <= distinct:
        raise InputError(
            f"Expected from 1 to {distinct} clusters, as many as there are distinct points among "
            f"the {len(coordinates)} images, got {clusters}. Choose another number with "
            "--n-clusters."
        )
    points = coordinates.astype(np.float64)
    if normalize:
        spreads = points.std(axis=0)
        points = points / np.where(spreads > 0, spreads, 1.0)
    means = KMeans(clusters, n_init=_RESTARTS, max_iter=_ITERATIONS, random_state=seed)  # pyright: ignore[reportArgumentType]
    with threadpool_limits(1):  # sums over threads would depend on their number
        labels = means.fit_predict(points).astype(np.int64)
    order = order_leaves(means.cluster_centers_)
    number = np.empty(clusters, np.int64)
    number[order] = np.arange(clusters)
    labels = number[labels]
    images = _nearest_members(points, labels, means.cluster_centers_[order])
    return Clusters(coordinates[images].astype(np.float64), images, labels)


def order_leaves(points: Float[np.ndarray, "points zdim"]) -> Int64[np.ndarray, " points"]:
    """Order points as the leaves of a tree of nearest neighbours, neighbours side by side.

    Of both directions that one is taken which begins at the smaller first coordinate.

    Example:
        >>> order_leaves(np.array([[5.0], [1.0], [7.0], [0.0]])).tolist()
        [3, 1, 0, 2]
    """
    if len(points) == 1:
        return np.zeros(1, np.int64)
    tree = linkage(points, method="average", optimal_ordering=True)
    order = leaves_list(tree).astype(np.int64)
    return order[::-1].copy() if points[order[0], 0] > points[order[-1], 0] else order


def _nearest_members(
    points: Float64[np.ndarray, "images zdim"],
    labels: Int64[np.ndarray, " images"],
    means: Float64[np.ndarray, "clusters zdim"],
) -> Int64[np.ndarray, " clusters"]:
    """Find the image of each cluster that is nearest to its mean; of equals the first."""
    away = points - means[labels]
    squares = np.einsum("nk,nk->n", away, away)
    order = np.lexsort((squares, labels))
    first = np.searchsorted(labels[order], np.arange(len(means)))
    return order[first]


def why_no_map(coordinates: Float[np.ndarray, "images zdim"]) -> str | None:
    """Say why UMAP cannot map these images; None if it can."""
    count, zdim = coordinates.shape
    if zdim == 1:
        return "one coordinate needs no map"
    if count < _LEAST_IMAGES:
        return f"{count} images are too few, at least {_LEAST_IMAGES} are needed"
    if find_spec("umap") is None:
        return "the package umap-learn is missing; pip install 'recovar[umap]' brings it"
    return None


def map_to_plane(
    coordinates: Float[np.ndarray, "images zdim"],
    seed: int,
    advance: Callable[[int], None] | None = None,
) -> Float32[np.ndarray, "images 2"]:
    """Map images to two dimensions by UMAP, for display only.

    Of more than 100,000 images so many, drawn by chance, make the map, and the others are placed
    in it beside their neighbours. The number of threads changes nothing.

    Args:
        coordinates: Latent coordinates for which `why_no_map` finds no reason.
        seed: Of all random choices.
        advance: Told how many more images have their place.

    Source: McInnes, Healy and Melville (2018), arXiv:1802.03426, as implemented by umap-learn.
    """
    with warnings.catch_warnings():
        # Of libraries below, about their own future and optional parts.
        warnings.simplefilter("ignore")
        import umap  # noqa: PLC0415

        count = len(coordinates)
        mapping = umap.UMAP(
            n_neighbors=min(_NEIGHBOURS, count - 1),
            init="pca",
            random_state=seed,
            transform_seed=seed,
            n_jobs=1,
        )
        order = np.random.default_rng(seed).permutation(count)
        place = np.empty((count, 2), np.float32)
        for start in (0, *range(MOST_FITTED, count, _PLACED_AT_ONCE)):
            size = _PLACED_AT_ONCE if start else MOST_FITTED
            chosen = np.sort(order[start : start + size])
            put = mapping.transform if start else mapping.fit_transform
            place[chosen] = put(coordinates[chosen].astype(np.float32))
            if advance is not None:
                advance(len(chosen))
    return place
