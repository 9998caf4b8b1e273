"""Smooth densities: the logarithm is that of a Gaussian plus a smooth random function.

The random function is a Gaussian process with Matérn covariance (ν = 5/2), written as filtered
white noise, so that the most likely density is the one of least noise that explains the images.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize

from recovar.density.likelihood import Likelihood
from recovar.density.shape import Shape

_SPREAD = 2.0
"""Standard deviation of the random function: a density is within factors of 50 of the Gaussian."""
_ITERATIONS = 200
_TOLERANCE = 0.05
"""Of the logarithm of the posterior."""


@dataclass(frozen=True)
class SmoothModel:
    """Densities of one smoothness, given by white noise on the points of the larger box."""

    likelihood: Likelihood
    base: Float[np.ndarray, "..."]
    """Logarithm of the Gaussian on the box."""
    filter: Float[np.ndarray, "..."]
    """What makes noise smooth, for its Fourier transform."""

    def density(self, noise: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """Compute the probabilities of the points of the box; they sum to 1."""
        exponent = self.base + self._smooth(noise)[self.likelihood.grid.inner]
        values = np.exp(exponent - exponent.max())
        return values / values.sum()

    def score(self, noise: Float[np.ndarray, "..."], counts: Float[np.ndarray, "..."]) -> float:
        """Compute the logarithm of the likelihood of a density."""
        return self.likelihood.evaluate(self.density(noise), counts)[0]

    def fit(
        self,
        counts: Float[np.ndarray, "..."],
        start: Float[np.ndarray, "..."] | None = None,
        centre: Float[np.ndarray, "..."] | None = None,
    ) -> Float[np.ndarray, "..."]:
        """Find the noise of the most likely density.

        Args:
            counts: What was observed.
            start: First guess.
            centre: What noise is expected to be, 0 if not given. A random one makes the result a
                draw from what is possible, if images are drawn as well.
        """
        shape = self.likelihood.grid.shape
        zeros = np.zeros(shape, self.filter.dtype)
        mean = zeros if centre is None else centre

        def cost(flat: np.ndarray) -> tuple[float, np.ndarray]:
            return self._cost(flat.reshape(shape).astype(self.filter.dtype), counts, mean)

        first = (zeros if start is None else start).ravel()
        scale = max(1.0, abs(cost(first)[0]))
        found = minimize(
            cost,
            first,
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": _ITERATIONS, "ftol": _TOLERANCE / scale, "maxcor": 15},
        )
        return found.x.reshape(shape).astype(self.filter.dtype)

    def _cost(
        self,
        noise: Float[np.ndarray, "..."],
        counts: Float[np.ndarray, "..."],
        centre: Float[np.ndarray, "..."],
    ) -> tuple[float, np.ndarray]:
        inside = self.density(noise)
        value, slope = self.likelihood.evaluate(inside, counts)
        rest = noise - centre
        pull = inside * (slope - np.vdot(inside, slope))
        pull = self._smooth(self.likelihood.grid.embed(pull))
        return 0.5 * float(np.vdot(rest, rest)) - value, (rest - pull).ravel().astype(np.float64)

    def _smooth(self, noise: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        return self.likelihood.grid.invert(self.filter * self.likelihood.grid.transform(noise))


def make_model(likelihood: Likelihood, shape: Shape, length: float) -> SmoothModel:
    """Make the densities of one smoothness.

    Args:
        likelihood: Of densities on a grid.
        shape: Of the density; its Gaussian is the smoothest one.
        length: Over which the logarithm of the density changes, in standard deviations of the
            density.
    """
    grid, precision = likelihood.grid, likelihood.precision
    places = np.stack(np.meshgrid(*grid.axes, indexing="ij"), axis=-1) - shape.mean
    inverse = np.linalg.inv(shape.covariance)
    base = -0.5 * np.einsum("...i,ij,...j->...", places, inverse, places)
    squares = grid.quadratic(length**2 * shape.covariance, precision)
    spectrum = (1 + squares) ** (-0.5 * (len(shape.mean) + 5))
    variance = float(grid.invert(spectrum.astype(np.result_type(precision, np.complex64))).flat[0])
    return SmoothModel(
        likelihood,
        base.astype(precision),
        np.sqrt(spectrum * (_SPREAD**2 / variance)).astype(precision),
    )
