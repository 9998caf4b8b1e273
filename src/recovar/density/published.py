"""The deconvolution of the published program: one kernel for all images, and a knee."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64
from scipy import fft
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from recovar.density.errors import Observations
from recovar.density.kernel_density import estimate_kernel_density, silverman_covariance
from recovar.density.record import Density, normalize

ALPHAS = tuple(10.0**power for power in range(1, -10, -1))
"""Weights of the squared gradient, the smoothest density first."""
_DROPPED = 0.1
"""Share of the images that is left out, those with the least precise coordinates."""
_SAMPLED = 5000
_ITERATIONS = 500
_SCALE = 1e8


@dataclass(frozen=True)
class PublishedDeconvolution:
    """Densities from the smoothest to the roughest one."""

    densities: tuple[Density, ...]
    """One for each of `ALPHAS`."""
    costs: tuple[float, ...]
    """Mean squared differences from the kernel density, relative to its mean."""
    chosen: int
    """Number of the density at the knee of the costs."""

    @property
    def knee(self) -> Density:
        """The density that is chosen."""
        return self.densities[self.chosen]


def deconvolve_as_published(
    observations: Observations,
    axes: tuple[Float64[np.ndarray, "..."], ...] | None = None,
    seed: int = 0,
) -> PublishedDeconvolution:
    """Deconvolve the kernel density of coordinates with the average of their errors.

    Minimizes, for falling weights α, the mean squared difference of the blurred density from the
    kernel density plus α times the mean squared gradient, and chooses the knee of the costs. Every
    fit starts where the one before ended.

    Args:
        observations: At most 4 coordinates of every image, with their errors.
        axes: Places of the grid points; those of the kernel density if not given.
        seed: Of the images that the average is taken over.

    Source: `estimate_conformational_density` of the published program.
    """
    precision = np.linalg.norm(np.linalg.inv(observations.covariances), 2, axis=(1, 2))
    kept = precision >= np.quantile(precision, _DROPPED)
    values, errors = observations.values[kept], observations.covariances[kept]
    blurred = estimate_kernel_density(values, axes)
    scale = float(blurred.values.mean())
    target = blurred.values / scale
    problem = _Problem(
        target,
        _transform_errors(blurred, errors, silverman_covariance(values), seed),
        np.array([axis[1] - axis[0] for axis in blurred.axes]),
    )
    densities, costs, start = [], [], target
    with threadpool_limits(1, "blas"):  # threads that wait for such short products take ages
        for alpha in ALPHAS:
            start = problem.solve(alpha, start)
            densities.append(normalize(blurred.axes, start))
            costs.append(problem.misfit(start))
    return PublishedDeconvolution(tuple(densities), tuple(costs), find_knee(np.array(costs)))


def find_knee(costs: Float64[np.ndarray, " alphas"]) -> int:
    """Find where a falling curve is furthest below the line between its ends.

    Args:
        costs: At equal distances; their logarithms are compared.
    """
    heights = np.log10(np.maximum(costs, np.finfo(float).tiny))
    chord = np.linspace(heights[0], heights[-1], len(heights))
    return int(np.argmax(chord - heights))


@dataclass(frozen=True)
class _Problem:
    target: Float[np.ndarray, "..."]
    transfer: Float[np.ndarray, "..."]
    """Fourier transform of the kernel on a grid twice as large, so that nothing wraps around."""
    spacing: Float64[np.ndarray, " zdim"]

    def solve(self, alpha: float, start: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        shape = self.target.shape

        def cost(flat: np.ndarray) -> tuple[float, np.ndarray]:
            density = flat.reshape(shape)
            rest = self._blur(density) - self.target
            rough, pull = self._roughness(density)
            value = (np.mean(rest**2) + alpha * rough) * _SCALE
            slope = (2 * self._blur(rest) / rest.size + alpha * pull) * _SCALE
            return float(value), slope.ravel()

        found = minimize(
            cost,
            start.astype(np.float64).ravel(),
            jac=True,
            method="L-BFGS-B",
            bounds=[(0, None)] * start.size,
            options={"maxiter": _ITERATIONS},
        )
        return found.x.reshape(shape)

    def misfit(self, density: Float[np.ndarray, "..."]) -> float:
        return float(np.mean((self._blur(density) - self.target) ** 2))

    def _blur(self, density: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        double = [2 * count for count in density.shape]
        spectrum = fft.rfftn(density, double, workers=-1)
        blurred = np.asarray(fft.irfftn(spectrum * self.transfer, double, workers=-1))
        return blurred[tuple(slice(count) for count in density.shape)]

    def _roughness(
        self, density: Float[np.ndarray, "..."]
    ) -> tuple[float, Float[np.ndarray, "..."]]:
        """Compute the mean squared gradient, and its derivatives."""
        steps = self.spacing / self.spacing.mean()
        total, pull = 0.0, np.zeros_like(density)
        for axis, step in enumerate(steps):
            slope = np.diff(density, axis=axis) / step
            total += float(np.sum(slope**2)) / density.size
            ends = [(1, 1) if each == axis else (0, 0) for each in range(density.ndim)]
            change = np.asarray(np.diff(np.pad(slope, ends), axis=axis), np.float64)
            pull -= change * float(2 / (step * density.size))
        return total, pull


def _transform_errors(
    density: Density,
    errors: Float64[np.ndarray, "images zdim zdim"],
    bandwidth: Float64[np.ndarray, "zdim zdim"],
    seed: int,
) -> Float[np.ndarray, "..."]:
    """Average the normal distributions of random errors and the bandwidth; transform the average.

    On a double grid whose first point is the centre.
    """
    shape = [2 * count for count in density.values.shape]
    steps = [axis[1] - axis[0] for axis in density.axes]
    frequencies = [
        np.asarray(fft.fftfreq(count, step)) * (2 * np.pi)
        for count, step in zip(shape, steps, strict=True)
    ]
    frequencies[-1] = np.abs(frequencies[-1][: shape[-1] // 2 + 1])
    mesh = np.stack(np.meshgrid(*frequencies, indexing="ij"), axis=-1)
    drawn = np.random.default_rng(seed).permutation(len(errors))[:_SAMPLED]
    classes = np.array_split(drawn[np.argsort(np.trace(errors[drawn], axis1=1, axis2=2))], 64)
    total = np.zeros(mesh.shape[:-1])
    for each in classes:
        covariance = errors[each].mean(0) + bandwidth
        total += len(each) * np.exp(-0.5 * np.einsum("...i,ij,...j->...", mesh, covariance, mesh))
    return total / len(drawn)
