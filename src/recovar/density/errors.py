"""What single images tell about coordinates: an unbiased value, and the covariance of its error."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int
from sklearn.cluster import KMeans

_MOST_FITTED = 5000
"""Images that classes are made from; the others join them."""


@dataclass(frozen=True)
class Observations:
    """Coordinates with Gaussian errors of known covariance."""

    values: Float64[np.ndarray, "images zdim"]
    covariances: Float64[np.ndarray, "images zdim zdim"]

    def __len__(self) -> int:
        """Count the images."""
        return len(self.values)

    @property
    def dimensions(self) -> int:
        """Count the coordinates."""
        return self.values.shape[1]


def observe(
    values: Float[np.ndarray, "images pcs"],
    covariances: Float[np.ndarray, "images pcs pcs"],
    eigenvalues: Float[np.ndarray, " pcs"],
    dimensions: int,
) -> Observations:
    """Keep the first coordinates, with what errors of the others tell about their errors.

    The other coordinates are taken as normal with their eigenvalues as variances, so that many
    of them that are hardly known do not make the first ones uncertain.

    Args:
        values: Least-squares coordinates.
        covariances: Of their errors.
        eigenvalues: Prior variances.
        dimensions: How many coordinates to keep.
    """
    mean, covariance = values.astype(np.float64), covariances.astype(np.float64)
    kept = slice(0, dimensions)
    if dimensions == mean.shape[1]:
        return Observations(mean, covariance)
    rest = slice(dimensions, None)
    spread = covariance[:, rest, rest] + np.diag(eigenvalues[rest])
    gain = np.linalg.solve(spread, covariance[:, rest, kept]).swapaxes(1, 2)
    return Observations(
        mean[:, kept] - np.einsum("nij,nj->ni", gain, mean[:, rest]),
        covariance[:, kept, kept] - gain @ covariance[:, rest, kept],
    )


@dataclass(frozen=True)
class ErrorClasses:
    """Images grouped so that errors are nearly alike within a class."""

    labels: Int[np.ndarray, " images"]
    covariances: Float64[np.ndarray, "classes zdim zdim"]
    """Covariance that stands for all of a class."""


def group_errors(
    covariances: Float64[np.ndarray, "images zdim zdim"], classes: int, seed: int = 0
) -> ErrorClasses:
    """Group images by the logarithm of their covariances.

    Args:
        covariances: Of the errors, in any units.
        classes: At most so many.
        seed: Of the grouping.
    """
    root = np.sqrt(np.einsum("nii->i", covariances) / len(covariances))
    values, vectors = np.linalg.eigh(covariances / np.multiply.outer(root, root))
    logs = np.einsum("nik,nk,njk->nij", vectors, np.log(np.maximum(values, 1e-12)), vectors)
    upper = np.triu_indices(len(root))
    # Off the diagonal each element stands for two.
    features = logs[:, *upper] * np.where(upper[0] == upper[1], 1, np.sqrt(2))
    chosen = np.random.default_rng(seed).permutation(len(features))[:_MOST_FITTED]
    distinct = len(np.unique(features[chosen], axis=0))
    fit = KMeans(min(classes, distinct), n_init="auto", random_state=seed).fit(features[chosen])
    _, labels = np.unique(np.asarray(fit.predict(features)), return_inverse=True)
    means = np.stack([covariances[labels == k].mean(0) for k in range(labels.max() + 1)])
    return ErrorClasses(labels, means)
