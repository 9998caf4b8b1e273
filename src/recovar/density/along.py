"""The density along a path through latent space, which a bent motion takes.

Along single coordinates such a motion turns, and its density is folded; along the path it is not.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Shaped
from scipy.stats import chi2

from recovar.compute.progress import NoProgress, Progress
from recovar.density.curve import CurveLikelihood, make_curve, make_curve_likelihood
from recovar.density.deconvolution import Deconvolution, fit_density
from recovar.density.errors import Observations
from recovar.density.shape import Shape

PLACES = 128
"""Places along a path."""
REPLICATES = 100
"""Densities that bands are made of."""
_STEPS = 20
"""Of expectation and maximization for the mean and the variance along the path."""


@dataclass(frozen=True)
class PathDensity:
    """A density along a path."""

    found: Deconvolution
    """Over the arc length, which is below 0 and above the length of the path on straight ends."""
    points: Float64[np.ndarray, "places zdim"]
    """Where the images of each place are, in unregularized coordinates."""
    nearest: Float64[np.ndarray, " images"]
    """Arc length of the place that is nearest to each image, its errors considered."""
    misfit: float
    """Squared distance of an image from where it is on the path, relative to that of errors alone:
    1 if molecules move along the path only and errors are known exactly. A median over images."""


def density_along(
    observations: Observations,
    points: Float[np.ndarray, "waypoints zdim"],
    arc_length: Float[np.ndarray, " waypoints"],
    particles: Shaped[np.ndarray, " images"] | None = None,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
    progress: Progress = NoProgress(),
) -> PathDensity:
    """Estimate the density of molecules along a path without errors, with 95 % bands.

    The likelihood of a place on the path is that of the coordinates of an image given the place,
    with the errors of that image in all coordinates. Otherwise it is as in `deconvolve`. Images
    may lie beyond the ends of the path, which go on straight.

    Args:
        observations: Coordinates of every image, not regularized, with their errors; see `observe`.
        points: Of a path in these coordinates, as `LatentPath.points`.
        arc_length: Of the path at these points, rising from 0.
        particles: Which particle an image shows; each its own if not given.
        replicates: How many densities bands are made of.
        seed: Of halves and replicates.
        progress: Told how far the work is.
    """
    path, length = points.astype(np.float64), arc_length.astype(np.float64)
    curve = make_curve(observations, path, length, PLACES)
    likelihood = make_curve_likelihood(observations, curve)
    found = fit_density(
        likelihood,
        _find_shape(likelihood, curve.arc),
        np.arange(len(observations)) if particles is None else particles,
        replicates,
        left_out=int((likelihood.distances.min(1) > likelihood.far).sum()),
        seed=seed,
        progress=progress,
    )
    shares = likelihood.share(found.density.values)
    squares = np.einsum("np,np->n", shares, likelihood.distances)
    # One of the coordinates is that along the path, in which images are as far off as is unknown.
    across = observations.dimensions - 1
    expected = 1 + (float(chi2.median(across)) if across else 0)
    nearest = curve.arc[likelihood.distances.argmin(1)]
    return PathDensity(found, curve.points, nearest, float(np.median(squares)) / expected)


def _find_shape(likelihood: CurveLikelihood, arc: Float64[np.ndarray, " places"]) -> Shape:
    """Find mean and variance along a curve."""
    shares = likelihood.maximize(np.full(len(arc), 1 / len(arc)), _STEPS)
    mean = shares @ arc
    return Shape(np.array([mean]), np.array([[shares @ (arc - mean) ** 2]]), moves=True)
