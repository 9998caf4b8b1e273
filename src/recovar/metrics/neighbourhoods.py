"""Whether images that are close in one space are close in another, with no model between them.

A space is a table of points, one row per image, and only the order of distances counts. So
rotations may stand for themselves, flattened: the Frobenius distance grows with the angle between
them. Labels are points as one column per label. Time grows with the square of the number of
images, memory with the number: `sample` takes some of them.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy.spatial.distance import cdist
from scipy.stats import rankdata

_BLOCK = 2**23
"""Distances that are held at once."""


def sample(count: int, most: int, seed: int = 0) -> Int[np.ndarray, " chosen"]:
    """Choose at most `most` of `count` images at random; the same ones for the same seed."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).permutation(count)[:most])


def label_points(labels: Shaped[np.ndarray, " images"]) -> Float[np.ndarray, "images labels"]:
    """Make labels the points of a space in which two labels are equally far from each other."""
    kinds, numbers = np.unique(labels, return_inverse=True)
    return np.eye(len(kinds))[numbers]


def neighbourhood_similarity(
    first: Float[np.ndarray, "images first"],
    second: Float[np.ndarray, "images second"],
    counts: Sequence[int],
) -> Float[np.ndarray, " counts"]:
    """Give the share of the k nearest neighbours that images have in common in two spaces.

    For every image: of its k nearest others in the first space, the share that is among its k
    nearest in the second; then the mean over all images. From 0 to 1, which is perfect;
    `chance_similarity` is what a shuffled space gives. Others that are as near in the second space
    as the k-th all belong to the k nearest, so that for labels this is the share of neighbours
    with the same label as long as more than k images have it, and 1 for larger k.

    Args:
        first: Where images lie, such as an embedding.
        second: The same images in another space, such as the truth.
        counts: Numbers of neighbours k, each below the number of images.

    Source: `Boggust et al. 2022` compare neighbourhoods of two embeddings; the share of k that
    they have in common is that of CryoBench (`Jeon et al. 2024`).

    Example:
        The first two change places, so only the third has another nearest neighbour.

        >>> line = np.array([0.0, 1.0, 3.0, 7.0])[:, None]
        >>> neighbourhood_similarity(line, line[[1, 0, 2, 3]], [1, 3]).tolist()
        [0.75, 1.0]
    """
    common = np.zeros(len(counts))
    for near, far in _distances(first, second):
        order = np.argsort(near, axis=1, kind="stable")
        sorted_far = np.sort(far, axis=1)
        for place, k in enumerate(counts):
            chosen = np.take_along_axis(far, order[:, :k], axis=1)
            common[place] += (chosen <= sorted_far[:, k - 1 : k]).sum() / k
    return common / len(first)


def chance_similarity(
    second: Float[np.ndarray, "images second"], counts: Sequence[int]
) -> Float[np.ndarray, " counts"]:
    """Give the similarity of neighbourhoods with a space in which images lie at random.

    k/(n − 1), or more where images of the second space share a place.

    Example:
        >>> chance_similarity(np.array([0.0, 1.0, 3.0, 7.0, 15.0])[:, None], [1, 4]).tolist()
        [0.25, 1.0]
    """
    total = np.zeros(len(counts))
    for _, far in _distances(second, second):
        sorted_far = np.sort(far, axis=1)
        for place, k in enumerate(counts):
            total[place] += (far <= sorted_far[:, k - 1 : k]).mean(1).sum()
    # The image itself lies infinitely far, and is one of the n that the mean is over.
    return total / (len(second) - 1)


def information_imbalance(
    first: Float[np.ndarray, "images first"], second: Float[np.ndarray, "images second"]
) -> float:
    """Tell how little of the second space is known from the first: Δ(first → second).

    2/N times the mean rank, in the second space, of an image's nearest neighbour in the first.
    About 0 where neighbours in the first space are neighbours in the second, 1 where the first says
    nothing about the second. Not symmetric: a space can hold another and more. Images that are
    equally far share the mean of their ranks, as if they were put in order at random, so labels
    tell themselves with Σ share², not 0: compare with Δ(second → second).

    Source: `Glielmo et al. 2022`, eq. 1.

    Example:
        >>> line = np.array([0.0, 1.0, 3.0, 7.0])[:, None]
        >>> information_imbalance(line, line)  # 2/4 · 1
        0.5
        >>> labels = label_points(np.array([0, 0, 1, 1]))
        >>> information_imbalance(line, labels)  # 2/4 · (1 + 1 + 2½ + 1)/4
        0.6875
    """
    total = 0.0
    for near, far in _distances(first, second):
        ranks = rankdata(far, axis=1)
        nearest = near == near.min(1, keepdims=True)
        total += float(((ranks * nearest).sum(1) / nearest.sum(1)).sum())
    return 2 * total / len(first) ** 2


def _distances(
    first: Float[np.ndarray, "images first"], second: Float[np.ndarray, "images second"]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Give rows block by block with their distances to all images in both spaces.

    An image is infinitely far from itself.
    """
    count = len(first)
    step = max(1, _BLOCK // count)
    for start in range(0, count, step):
        rows = np.arange(start, min(start + step, count))
        near, far = cdist(first[rows], first), cdist(second[rows], second)
        for distances in (near, far):
            distances[np.arange(len(rows)), rows] = np.inf
        yield near, far
