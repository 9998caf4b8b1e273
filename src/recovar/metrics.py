"""How well a result agrees with a known truth, as numbers between 0 and 1 where 1 is perfect.

What is compared is named by its meaning, not by its file: coordinates may be turned, scaled and
bent by the method that found them, so they are asked only what they tell about the truth.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy.spatial import KDTree

_LEAST_SHARE = 1e-12
"""Variances below this share of the largest one are rounding."""
_LEAST_LENGTH = 1e-6
"""Parts of a volume below this share of it are rounding."""


@dataclass(frozen=True)
class Population:
    """True volumes of many molecules, as mean and principal components."""

    mean: Float[np.ndarray, "z y x"]
    components: Float[np.ndarray, "pcs z y x"]
    """Orthonormal: Σ component² = 1."""
    variances: Float[np.ndarray, " pcs"]
    """Along each component, descending; their sum is the variance of all voxels together."""

    @property
    def shares(self) -> Float[np.ndarray, " pcs"]:
        """Share of the variance within the first 1, 2, … components: no others hold more."""
        return np.cumsum(self.variances) / self.variances.sum()


def describe_population(
    volumes: Float[np.ndarray, "states z y x"], weights: Float[np.ndarray, " states"]
) -> Population:
    """Compute mean and all principal components of molecules of which some are alike.

    Args:
        volumes: The distinct volumes.
        weights: How many molecules look like each.

    Example:
        >>> volumes = np.zeros((2, 4, 4, 4))
        >>> volumes[1, 0, 0, 0] = 4.0
        >>> found = describe_population(volumes, np.array([3.0, 1.0]))
        >>> found.mean[0, 0, 0].item(), found.variances.tolist()
        (1.0, [3.0])
    """
    shares = weights / weights.sum()
    mean = np.tensordot(shares, volumes, 1)
    rows = (np.sqrt(shares)[:, None] * (volumes - mean).reshape(len(volumes), -1)).astype(float)
    variances, vectors = np.linalg.eigh(rows @ rows.T)
    variances, vectors = variances[::-1], vectors[:, ::-1]
    kept = variances > _LEAST_SHARE * max(float(variances[0]), np.finfo(float).tiny)
    components = (vectors[:, kept] / np.sqrt(variances[kept])).T @ rows
    return Population(mean, components.reshape(-1, *mean.shape), variances[kept])


def captured_variance(
    volumes: Float[np.ndarray, "pcs z y x"], population: Population
) -> Float[np.ndarray, " pcs"]:
    """Give the share of a population's variance within the span of the first 1, 2, … volumes.

    `Population.shares` is the most that is possible. Scale and sign of the volumes do not count;
    volumes that span nothing new add nothing.

    Example:
        >>> volumes = np.zeros((3, 4, 4, 4))
        >>> volumes[1, 0, 0, 0], volumes[2, 1, 1, 1] = 1.0, 1.0
        >>> population = describe_population(volumes, np.ones(3))
        >>> captured_variance(population.components, population).round(2).tolist()
        [0.75, 1.0]
        >>> captured_variance(np.roll(volumes[1:], 2, axis=1), population).tolist()
        [0.0, 0.0]
    """
    span = _orthonormalize(volumes.reshape(len(volumes), -1).astype(np.float64))
    overlaps = population.components.reshape(len(population.components), -1) @ span.T
    return np.cumsum(population.variances @ overlaps**2) / population.variances.sum()


def _orthonormalize(rows: Float[np.ndarray, "rows n"]) -> Float[np.ndarray, "rows n"]:
    """Make each row orthogonal to those before it; one that lies in their span becomes 0."""
    span = np.zeros_like(rows)
    for number, row in enumerate(rows):
        rest = row / max(float(np.linalg.norm(row)), np.finfo(float).tiny)
        for _ in range(2):  # the second time removes the rounding of the first
            rest = rest - (span[:number] @ rest) @ span[:number]
        length = float(np.linalg.norm(rest))
        if length > _LEAST_LENGTH:
            span[number] = rest / length
    return span


def predict_by_neighbours(
    coordinates: Float[np.ndarray, "images zdim"],
    values: Shaped[np.ndarray, " images"],
    neighbours: int = 20,
) -> Float[np.ndarray, " images"]:
    """Predict a value of every image from the images nearest to it, itself left out.

    Distances count as they are in `coordinates`; posterior means are suited, because coordinates
    that an image does not determine are close to 0 there.

    Args:
        coordinates: Where images lie.
        values: What is known of each.
        neighbours: Images to average over; fewer if there are not so many.
    """
    count = min(neighbours, len(values) - 1)
    near = np.asarray(KDTree(coordinates).query(coordinates, count + 1)[1])
    itself = near == np.arange(len(values))[:, None]
    itself[~itself.any(1), -1] = True  # many at one place: any of them may be missing
    return values[near[~itself].reshape(len(values), count)].mean(1)


def explained_variance(
    coordinates: Float[np.ndarray, "images zdim"],
    values: Shaped[np.ndarray, " images"],
    neighbours: int = 20,
) -> float:
    """Give the share of the variance of values that neighbours in latent space predict.

    1 − Σ (value − prediction)² / Σ (value − mean)². Coordinates that say nothing about the values
    give about −1/`neighbours`.

    Example:
        >>> place = np.linspace(0, 1, 200)
        >>> explained_variance(place[:, None], place**2) > 0.99
        True
    """
    rest = values - predict_by_neighbours(coordinates, values, neighbours)
    return float(1 - np.mean(rest**2) / np.var(values))


def classification_accuracy(
    coordinates: Float[np.ndarray, "images zdim"],
    labels: Bool[np.ndarray, " images"],
    neighbours: int = 20,
) -> float:
    """Give the share of images whose label is that of most of their neighbours in latent space.

    Compare it with the share of the commoner label, which is what guessing gives.

    Example:
        >>> place = np.linspace(0, 1, 200)
        >>> classification_accuracy(place[:, None], place > 0.5) > 0.95
        True
    """
    votes = predict_by_neighbours(coordinates, labels, neighbours)
    return float(np.mean((votes > 0.5) == labels))
