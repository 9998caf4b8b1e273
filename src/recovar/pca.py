"""From columns of the covariance to principal components and their variances."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Complex, Float

from recovar.core import fourier
from recovar.core.frequencies import Ball
from recovar.core.grid import Grid
from recovar.core.linalg import eigh_descending, nearest_psd, weighted_svd
from recovar.covariance import Columns

_RIDGE = 1e-6
_CHANGE = 1e-4

_SUBSET = 4096
"""Images that the first steps of the likelihood are taken with."""


@dataclass(frozen=True)
class Basis:
    """Volumes that span where molecules vary, orthonormal in the Fourier norm."""

    values: Complex[np.ndarray, "voxels pcs"]
    """Coefficients on `ball`: Σ weights·|u|² = 1 for each."""
    ball: Ball
    """Where they lie; no oversampling."""
    singular_values: Float[np.ndarray, " pcs"]
    """How strongly the columns point along each, descending."""

    def volumes(self, size: int | None = None) -> Float[np.ndarray, "pcs z y x"]:
        """Transform to real maps whose spectra are `values`.

        Args:
            size: Box; None is the smallest that holds the frequencies. Slices of any of them
                have the same coefficients.
        """
        box = size or Grid(self.ball.size, 1.0).at_radius(self.ball.radius).size
        cubes = Ball(box, self.ball.radius, 1).to_cube(self._inside())
        return fourier.to_volume(np.ascontiguousarray(np.moveaxis(cubes, -1, 0)))

    def _inside(self) -> Complex[np.ndarray, "voxels pcs"]:
        return self.values * (self.ball.radii <= self.ball.radius)[:, None]

    def weighted(self, weight: Float[np.ndarray, "z y x"]) -> "Basis":
        """Multiply the volumes by a map, and make them orthonormal again, strongest first."""
        ball = self.ball
        size = weight.shape[-1]
        strengths = self.singular_values.astype(np.float32)
        cubes = fourier.to_spectrum(self.volumes(size).astype(np.float32) * weight)
        values = Ball(size, ball.radius, 1).from_cube(np.moveaxis(cubes, 0, -1)) * strengths
        weights = ball.weights * (ball.radii <= ball.radius)
        found = weighted_svd(values, weights, len(strengths))
        return Basis(found.vectors, ball, found.values)

    def rotated(self, rotation: Float[np.ndarray, "pcs kept"]) -> "Basis":
        """Combine the volumes; with an orthogonal matrix they stay orthonormal."""
        values = self.values @ rotation.astype(np.float32)
        return Basis(values, self.ball, np.abs(self.singular_values @ rotation**2))


@dataclass(frozen=True)
class PrincipalComponents:
    """Directions in which molecules vary most: volume(z) = mean + Σ z_k · volumes_k."""

    volumes: Float[np.ndarray, "pcs z y x"]
    """Maps with Σ volume² = 1/size³ and Σ volume ≥ 0."""
    eigenvalues: Float[np.ndarray, " pcs"]
    """Variances of the coordinates z, descending."""

    def leading(self, count: int) -> "PrincipalComponents":
        """Keep the first components."""
        return PrincipalComponents(self.volumes[:count], self.eigenvalues[:count])


def basis_from_columns(columns: Columns, rank: int = 128) -> Basis:
    """Find the leading left singular vectors of the columns.

    Each column counts with both its frequency and its mirror image, which the real and imaginary
    parts stand for.
    """
    ball = columns.ball
    weights = ball.weights * (ball.radii <= ball.radius)
    found = weighted_svd(columns.values, weights, rank)
    return Basis(found.vectors, ball, found.values)


def project_covariance_least_squares(
    projections: Float[np.ndarray, "images pcs"],
    grams: Float[np.ndarray, "images pcs pcs"],
    iterations: int = 60,
) -> Float[np.ndarray, "pcs pcs"]:
    """Estimate the covariance of coordinates by matching second moments.

    Solves Σ G Γ G = Σ (b bᵀ − G) by conjugate gradients, preconditioned by the average G on both
    sides, and replaces negative eigenvalues by 0.

    Args:
        projections: b = Aᵀr of every image, for whitened A and r.
        grams: G = AᵀA of every image.
        iterations: Most steps of conjugate gradients.

    Source: Gilles & Singer 2025, with whitened images.
    """
    average = grams.mean(0, dtype=np.float64)
    average += _RIDGE * np.trace(average) / len(average) * np.eye(len(average))
    inverse = np.linalg.inv(average)
    target = projections.T.astype(np.float64) @ projections / len(grams) - average
    covariance = np.zeros_like(average)
    residual = target
    direction = step = inverse @ residual @ inverse
    rho = np.vdot(residual, step)
    first = rho
    for _ in range(iterations):
        image = _mean_sandwich(grams, direction)
        length = rho / np.vdot(direction, image)
        covariance = covariance + length * direction
        residual = residual - length * image
        step = inverse @ residual @ inverse
        rho, previous = np.vdot(residual, step), rho
        if rho <= 1e-12 * first:
            break
        direction = step + rho / previous * direction
    return nearest_psd(covariance)


def _mean_sandwich(
    grams: Float[np.ndarray, "images pcs pcs"], middle: Float[np.ndarray, "pcs pcs"]
) -> Float[np.ndarray, "pcs pcs"]:
    """Average G X G over images, as two matrix products."""
    total = np.zeros(middle.shape)
    middle = middle.astype(grams.dtype)
    pcs = len(middle)
    for block in _blocks(grams):
        left = (block @ middle).reshape(-1, pcs) if pcs > 1 else block[:, 0] * middle[0]
        left = left.reshape(len(block), pcs, pcs).transpose(0, 2, 1).reshape(-1, pcs)
        total += left.T.astype(np.float64) @ block.reshape(-1, pcs)
    return total / len(grams)


def _blocks(grams: Float[np.ndarray, "images pcs pcs"]) -> list[np.ndarray]:
    each = max(1, (1 << 24) // grams[0].nbytes)
    return [grams[start : start + each] for start in range(0, len(grams), each)]


def project_covariance_likelihood(
    projections: Float[np.ndarray, "images pcs"],
    grams: Float[np.ndarray, "images pcs pcs"],
    start: Float[np.ndarray, "pcs pcs"] | None = None,
    iterations: int = 40,
) -> Float[np.ndarray, "pcs pcs"]:
    """Estimate the covariance of coordinates by maximum likelihood.

    Model: b given z is N(G z, G) and z ~ N(0, Γ). Each step of expectation maximization averages
    the second moments of z given each image; the result is positive definite by construction.

    Args:
        projections: b = Aᵀr of every image, for whitened A and r. With contrasts a,
            b → a·b and G → a²·G.
        grams: G = AᵀA of every image.
        start: Where to begin; None is the least-squares solution.
        iterations: Most steps. With many images most of them are done on a regular subset.
    """
    if start is None:
        start = project_covariance_least_squares(projections, grams)
    root = np.linalg.cholesky(_well_conditioned(start, grams))
    if len(grams) > 2 * _SUBSET:
        chosen = np.linspace(0, len(grams) - 1, _SUBSET).astype(np.int64)
        root = _climb(root, projections[chosen], grams[chosen], iterations)
        iterations = max(1, iterations // 8)
    root = _climb(root, projections, grams, iterations)
    return root @ root.T


def _climb(
    root: Float[np.ndarray, "pcs pcs"],
    projections: Float[np.ndarray, "images pcs"],
    grams: Float[np.ndarray, "images pcs pcs"],
    iterations: int,
) -> Float[np.ndarray, "pcs pcs"]:
    """Repeat steps of expectation maximization for the covariance root·rootᵀ."""
    for _ in range(iterations):
        moment = _mean_moment(projections, grams, root)
        root = root @ np.linalg.cholesky(moment)
        if np.abs(moment - np.eye(len(moment))).max() < _CHANGE:
            break
    return root


def _well_conditioned(
    covariance: Float[np.ndarray, "pcs pcs"], grams: Float[np.ndarray, "images pcs pcs"]
) -> Float[np.ndarray, "pcs pcs"]:
    """Raise small eigenvalues, which expectation maximization could hardly move."""
    typical = len(covariance) / np.trace(grams.mean(0, dtype=np.float64))
    covariance = nearest_psd(covariance, 1e-3)
    return covariance + 1e-2 * typical * np.eye(len(covariance))


def _mean_moment(
    projections: Float[np.ndarray, "images pcs"],
    grams: Float[np.ndarray, "images pcs pcs"],
    root: Float[np.ndarray, "pcs pcs"],
) -> Float[np.ndarray, "pcs pcs"]:
    """Average the second moments of root⁻¹z given each image."""
    single = root.astype(grams.dtype)
    total = np.zeros(root.shape)
    start = 0
    for block in _blocks(grams):
        rows = projections[start : start + len(block)]
        start += len(block)
        spread = np.linalg.inv(np.eye(len(root), dtype=grams.dtype) + single.T @ block @ single)
        found = (spread @ (rows @ single)[..., None])[..., 0]
        total += spread.sum(0, dtype=np.float64) + found.T.astype(np.float64) @ found
    return total / len(grams)


def principal_components(
    basis: Basis, covariance: Float[np.ndarray, "pcs pcs"], size: int, count: int
) -> PrincipalComponents:
    """Diagonalize the covariance of coordinates along a basis.

    Args:
        basis: Orthonormal volumes.
        covariance: Covariance of the coordinates along them.
        size: Box of the maps.
        count: Most components to keep.
    """
    values, rotation = eigh_descending(covariance)
    count = min(count, len(values))
    volumes = basis.rotated(rotation[:, :count]).volumes(size).astype(np.float32)
    signs = np.where(volumes.sum((1, 2, 3), dtype=np.float64) < 0, -1, 1)
    return PrincipalComponents(
        volumes * signs[:, None, None, None].astype(np.float32), np.maximum(values[:count], 0)
    )


def remove_direction(
    basis: Basis,
    covariance: Float[np.ndarray, "pcs pcs"],
    direction: Complex[np.ndarray, " voxels"],
) -> tuple[Basis, Float[np.ndarray, "kept kept"]]:
    """Take one direction, such as the mean, out of a covariance.

    Contrast that varies from image to image adds a multiple of the mean's outer product to the
    covariance. This removes it, and with it all true variation along the mean.

    Args:
        basis: Orthonormal volumes.
        covariance: Covariance of the coordinates along them.
        direction: Coefficients on the ball of the basis, of any scale.

    Returns:
        The same volumes made orthogonal to the direction, orthonormalized and sorted, and the
        diagonal covariance along them.
    """
    weights = basis.ball.weights * (basis.ball.radii <= basis.ball.radius)
    values, rotation = eigh_descending(nearest_psd(covariance))
    scaled = basis.values @ (rotation * np.sqrt(np.maximum(values, 0))).astype(np.float32)
    unit = direction / np.sqrt(np.sum(weights * np.abs(direction) ** 2))
    overlap = (weights * unit.conj()) @ scaled
    found = weighted_svd(
        (scaled - unit[:, None] * overlap.real).astype(np.complex64), weights, len(values)
    )
    return Basis(found.vectors, basis.ball, found.values), np.diag(found.values**2)
