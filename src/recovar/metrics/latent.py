"""What latent coordinates tell of the truth: they may be turned, scaled and bent by their method.

So they are asked only what can be predicted from them. Predictions are for images that were left
out, which coordinates that say nothing cannot do.
"""

from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Shaped
from scipy.spatial import KDTree
from sklearn.cluster import KMeans
from sklearn.linear_model import LinearRegression
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures

_FOLDS = 5
_RESTARTS = 5
_NEIGHBOURS = 50
"""Of the regression that is cross-validated."""


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
    return _r2(values, predict_by_neighbours(coordinates, values, neighbours))


def classification_accuracy(
    coordinates: Float[np.ndarray, "images zdim"],
    labels: Shaped[np.ndarray, " images"],
    neighbours: int = 20,
) -> float:
    """Give the share of images whose label is that of most of their neighbours in latent space.

    Compare it with the share of the commonest label, which is what guessing gives.

    Example:
        >>> place = np.linspace(0, 1, 200)
        >>> classification_accuracy(place[:, None], place > 0.5) > 0.95
        True
    """
    kinds, numbers = np.unique(labels, return_inverse=True)
    votes = [
        predict_by_neighbours(coordinates, numbers == kind, neighbours)
        for kind in range(len(kinds))
    ]
    return float(np.mean(np.argmax(votes, axis=0) == numbers))


def regression_r2(
    coordinates: Float[np.ndarray, "images zdim"],
    values: Shaped[np.ndarray, " images"],
    model: Literal["linear", "quadratic", "neighbours"] = "linear",
) -> float:
    """Give the share of the variance of values that a model of the coordinates predicts.

    1 − Σ (value − prediction)² / Σ (value − mean)², each fifth of the images predicted by a model
    of the others: an affine map, a polynomial of degree two, or the mean of the 50 nearest. 1 is
    perfect; 0, or slightly less, is nothing. A motion may be bent in latent space, which the affine
    map alone does not follow.

    Example:
        >>> z = np.linspace(-1, 1, 100)[:, None]
        >>> round(regression_r2(z, 3 * z[:, 0] - 1), 6)
        1.0
        >>> round(regression_r2(z, z[:, 0] ** 2), 2) <= 0
        True
        >>> round(regression_r2(z, z[:, 0] ** 2, "quadratic"), 6)
        1.0
    """
    models: dict[str, Any] = {
        "linear": LinearRegression(),
        "quadratic": make_pipeline(PolynomialFeatures(2), LinearRegression()),
        "neighbours": KNeighborsRegressor(min(_NEIGHBOURS, len(values) * (_FOLDS - 1) // _FOLDS)),
    }
    return _r2(values, _predict(models[model], coordinates, values.astype(np.float64)))


def linear_accuracy(
    coordinates: Float[np.ndarray, "images zdim"], labels: Shaped[np.ndarray, " images"]
) -> float:
    """Give the share of images whose label the best of affine functions of the coordinates tells.

    One function per label is fitted to 1 where the label holds and 0 elsewhere, by least squares
    on four fifths of the images, and the largest one decides for the others. Compare it with the
    share of the commonest label.

    Example:
        >>> z = np.linspace(-1, 1, 100)[:, None]
        >>> linear_accuracy(z, z[:, 0] > 0)
        1.0
    """
    kinds, numbers = np.unique(labels, return_inverse=True)
    votes = _predict(LinearRegression(), coordinates, np.eye(len(kinds))[numbers])
    return float(np.mean(votes.argmax(1) == numbers))


def clustering_ari(
    coordinates: Float[np.ndarray, "images zdim"],
    labels: Shaped[np.ndarray, " images"],
    method: Literal["kmeans", "mixture"] = "kmeans",
    seed: int = 0,
) -> float:
    """Compare clusters of the coordinates with true labels by the adjusted Rand index.

    The share of pairs of images on which clusters and labels agree, rescaled so that 1 is perfect
    and chance is 0. There are as many clusters as labels, from the best of five random starts:
    k-means counts distances as they are; the Gaussian mixture, with full covariances, is fitted to
    coordinates of unit variance.

    Source: `Hubert & Arabie 1985`, eq. 5.

    Example:
        >>> z = np.array([0.0, 0.1, 0.2, 5.0, 5.1, 5.2])[:, None]
        >>> clustering_ari(z, np.array([1, 1, 1, 0, 0, 0]))
        1.0
    """
    count = len(np.unique(labels))
    if method == "kmeans":
        means = KMeans(count, n_init=_RESTARTS, random_state=seed)  # pyright: ignore[reportArgumentType]
        found = means.fit_predict(coordinates)
    else:
        mixture = GaussianMixture(count, n_init=_RESTARTS, random_state=seed)
        found = mixture.fit_predict(standardize(coordinates))
    return float(adjusted_rand_score(labels, found))


def within_label_share(
    coordinates: Float[np.ndarray, "images zdim"], labels: Shaped[np.ndarray, " images"]
) -> float:
    """Give the share of the variance of the coordinates that is left among images with one label.

    Σ |z − mean of its label|² / Σ |z − mean|²: 0 where each label is a point, 1 where labels and
    coordinates have nothing in common. What varies besides the labels counts as well.

    Example:
        >>> z = np.array([0.0, 2.0, 10.0, 12.0])[:, None]
        >>> round(within_label_share(z, np.array([0, 0, 1, 1])), 4)  # 4 / 104
        0.0385
    """
    rest = coordinates - coordinates.mean(0)
    total = float((rest**2).sum())
    for label in np.unique(labels):
        rest[labels == label] -= rest[labels == label].mean(0)
    return float((rest**2).sum()) / total


def standardize(
    coordinates: Float[np.ndarray, "images zdim"],
) -> Float[np.ndarray, "images zdim"]:
    """Shift and scale each coordinate to mean 0 and variance 1; constant ones become 0."""
    spread = coordinates.std(0)
    return (coordinates - coordinates.mean(0)) / np.where(spread > 0, spread, 1)


def _predict(
    model: Any,  # noqa: ANN401
    coordinates: Float[np.ndarray, "images zdim"],
    values: Float[np.ndarray, "images *values"],
) -> Float[np.ndarray, "images *values"]:
    """Predict each fifth of the images by a model that was fitted to the others."""
    folds = np.random.default_rng(0).permutation(len(values)) % _FOLDS
    scaled = coordinates.astype(np.float64)
    if not isinstance(model, KNeighborsRegressor):
        scaled = standardize(scaled)
    return np.asarray(cross_val_predict(model, scaled, values, cv=PredefinedSplit(folds)))


def _r2(values: Shaped[np.ndarray, " images"], told: Shaped[np.ndarray, " images"]) -> float:
    return float(1 - np.mean((values - told) ** 2) / np.var(values))
