"""Curves through latent space, and how likely images are along them."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float32, Float64
from scipy.ndimage import gaussian_filter1d
from scipy.stats import chi2

from recovar.density.errors import Observations
from recovar.density.grid import LatentGrid

_REACH = 3.0
"""Errors along the path that straight ends go beyond it."""
_END = 0.05
"""Share of the path that tells the direction of an end."""
_FAR = 1e-4
"""Share of images whose errors bring them so far off that they count little wherever they are."""
_MOVES = 3
"""How often a curve is moved to the images."""
_SMOOTHING = 0.03
"""Standard deviation that moves are smoothed by, as a share of the curve."""
_HOLD = 0.02
"""Weight of where a curve was, relative to that of the images at an average place."""
_STEPS = 5
"""Of expectation and maximization for shares along a curve."""
_CHUNK = 4096


@dataclass(frozen=True)
class Curve:
    """Places along a path with straight ends."""

    arc: Float64[np.ndarray, " places"]
    """Arc length of the path that a place is from; equally far apart."""
    points: Float64[np.ndarray, "places zdim"]


@dataclass(frozen=True)
class CurveLikelihood:
    """The likelihood of densities along a curve; errors need not be normal along it."""

    grid: LatentGrid
    distances: Float32[np.ndarray, "images places"]
    """Squared distances of images from places, in units of their errors."""
    heights: Float32[np.ndarray, "images places"]
    """Likelihood of each place for each image, up to a factor for the image."""
    far: float
    """Squared distance beyond which images count little."""

    @property
    def precision(self) -> np.dtype:
        """Of the numbers that are worked with."""
        return np.dtype(np.float64)

    def count(self, weights: Float[np.ndarray, " images"]) -> Float[np.ndarray, " images"]:
        """Count images, which are not grouped."""
        return weights

    def evaluate(
        self, probabilities: Float[np.ndarray, " places"], counts: Float[np.ndarray, " images"]
    ) -> tuple[float, Float64[np.ndarray, " places"]]:
        """Compute the logarithm of the likelihood, and its derivatives."""
        likely = (self.heights @ probabilities.astype(np.float32)).astype(np.float64)
        slope = (counts / likely).astype(np.float32) @ self.heights
        return float(counts @ np.log(likely)), slope.astype(np.float64)

    def maximize(
        self, probabilities: Float64[np.ndarray, " places"], steps: int = _STEPS
    ) -> Float64[np.ndarray, " places"]:
        """Make the images likelier by steps of expectation and maximization, without smoothness."""
        images = np.ones(len(self.heights))
        for _ in range(steps):
            probabilities = probabilities * self.evaluate(probabilities, images)[1] / len(images)
        return probabilities / probabilities.sum()

    def share(
        self, probabilities: Float[np.ndarray, " places"]
    ) -> Float32[np.ndarray, "images places"]:
        """Compute how probable it is for each image to be at each place."""
        shares = self.heights * probabilities.astype(np.float32)
        return shares / shares.sum(1, keepdims=True)


def make_curve(
    observations: Observations,
    points: Float64[np.ndarray, "waypoints zdim"],
    arc: Float64[np.ndarray, " waypoints"],
    places: int,
) -> Curve:
    """Add straight ends to a path, and move it to where images are.

    Paths are found among regularized coordinates, which lie further in than others where a path is
    bent. Every place moves to the mean of the images that are probably there, by their precision.

    Args:
        observations: Coordinates with their errors.
        points: Of the path.
        arc: Arc length of the path there.
        places: How many.
    """
    precisions = np.linalg.inv(observations.covariances)
    beyond, ends = [], []
    for end, inner in ((0.0, _END), (1.0, 1 - _END)):
        here, there = _interpolate(np.array([end, inner]) * arc[-1], arc, points)
        direction = (here - there) / np.linalg.norm(here - there)
        reach = _REACH / np.sqrt(np.median(direction @ precisions @ direction))
        beyond.append(float(reach))
        ends.append(here + reach * direction)
    length = np.concatenate([[-beyond[0]], arc, [arc[-1] + beyond[1]]])
    wanted = np.linspace(length[0], length[-1], places)
    whole = np.concatenate([ends[:1], points, ends[1:]])
    curve = Curve(wanted, _interpolate(wanted, length, whole))
    shares = np.full(places, 1 / places)
    for _ in range(_MOVES):
        likelihood = make_curve_likelihood(observations, curve)
        shares = likelihood.maximize(shares)
        curve = _move(observations, precisions, curve, likelihood, shares)
    return curve


def make_curve_likelihood(observations: Observations, curve: Curve) -> CurveLikelihood:
    """Prepare the likelihood of densities along a curve.

    Args:
        observations: Coordinates with their errors.
        curve: Where densities are wanted.
    """
    # A place stands for all up to halfway to the next one.
    unsure = (curve.arc[1] - curve.arc[0]) ** 2 / 12
    precisions = np.linalg.inv(observations.covariances + unsure * np.eye(curve.points.shape[1]))
    distances = np.empty((len(observations), len(curve.arc)), np.float32)
    for first in range(0, len(distances), _CHUNK):
        some = slice(first, first + _CHUNK)
        rest = observations.values[some, None] - curve.points
        distances[some] = np.einsum("npi,npi->np", rest @ precisions[some], rest)
    far = float(chi2.isf(_FAR, observations.dimensions))
    heights = np.exp(np.float32(-0.5) * distances) + np.float32(np.exp(-0.5 * far))
    places = len(curve.arc)
    grid = LatentGrid(curve.arc[:1], curve.arc[-1:], (places,), (places // 2,))
    return CurveLikelihood(grid, distances, heights, far)


def _move(
    observations: Observations,
    precisions: Float64[np.ndarray, "images zdim zdim"],
    curve: Curve,
    likelihood: CurveLikelihood,
    probabilities: Float64[np.ndarray, " places"],
) -> Curve:
    places, zdim = curve.points.shape
    shares = likelihood.share(probabilities).astype(np.float64)
    shares *= 1 - np.exp(-0.5 * likelihood.far) / likelihood.heights
    weights = (shares.T @ precisions.reshape(-1, zdim**2)).reshape(places, zdim, zdim)
    pull = shares.T @ np.einsum("nij,nj->ni", precisions, observations.values)
    pull -= np.einsum("pij,pj->pi", weights, curve.points)
    width = _SMOOTHING * places
    weights = np.asarray(gaussian_filter1d(weights, width, axis=0, mode="nearest"))
    pull = np.asarray(gaussian_filter1d(pull, width, axis=0, mode="nearest"))
    hold = _HOLD * np.diag(weights.mean(0).diagonal())
    step = np.linalg.solve(weights + hold, pull[..., None])[..., 0]
    return replace(curve, points=curve.points + step)


def _interpolate(
    wanted: Float64[np.ndarray, " places"],
    arc: Float64[np.ndarray, " waypoints"],
    points: Float64[np.ndarray, "waypoints zdim"],
) -> Float64[np.ndarray, "places zdim"]:
    return np.stack([np.interp(wanted, arc, column) for column in points.T], axis=1)
