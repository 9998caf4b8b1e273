"""How far a map can be trusted, shell by shell, and how much of it to keep.

Fourier shell correlation of half-maps, the prior variance that it implies, and the Wiener filter
that weighs backprojected images against that prior.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Complex, Float, Inexact, Int, Shaped
from scipy import ndimage

from recovar.core.frequencies import Ball
from recovar.core.grid import Grid, half_weights, volume_radii

_LEAST_WEIGHT = 1e-3
"""Weights are raised to at least this share of their shell's average."""

_BLOCK = 2**18
"""Voxels that are handled at once."""

_BLUR = 2.0
"""Width in voxels of the field that tells where a molecule varies."""

_LEAST_FSC = 1e-3
"""Correlations are kept away from 0 and 1 by this before they become signal-to-noise ratios."""


def fsc(
    first: Complex[np.ndarray, "z y half_x"],
    second: Complex[np.ndarray, "z y half_x"],
    *,
    subtract_mean: bool = False,
) -> Float[np.ndarray, " shells"]:
    """Correlate two half-complex volumes on shells 0 … size/2 − 1.

    Shell 0 is given the value of shell 1, and shells without power the value 0.

    Args:
        first: One volume.
        second: The other.
        subtract_mean: Subtract each volume's shell averages first; for maps that are positive in
            Fourier space, such as variances.

    Example:
        >>> noise = np.random.default_rng(0).normal(size=(8, 8, 5)) + 0j
        >>> fsc(noise, -noise).tolist()
        [-1.0, -1.0, -1.0, -1.0]
    """
    size = first.shape[0]
    shells = np.rint(volume_radii(size)).astype(np.int64)
    weights = np.broadcast_to(half_weights(size), shells.shape)
    if subtract_mean:
        counts = shell_sums(np.ones(shells.shape), shells, weights)
        first, second = (
            a - (shell_sums(a, shells, weights) / counts)[shells] for a in (first, second)
        )
    cross = shell_sums(np.real(first.conj() * second), shells, weights)
    powers = [shell_sums(np.abs(a) ** 2, shells, weights) for a in (first, second)]
    norm = np.sqrt(powers[0] * powers[1])
    curve = np.divide(cross, norm, out=np.zeros_like(cross), where=norm > 0)[: size // 2]
    curve[0] = curve[1]
    return np.nan_to_num(curve, nan=0.0)


def shell_sums(
    values: Inexact[np.ndarray, "*points"],
    shells: Shaped[np.ndarray, "*points"],
    weights: Float[np.ndarray, "*points"],
    count: int = 0,
) -> Inexact[np.ndarray, " shells"]:
    """Sum values times weights over the points of every shell, `count` or more, in float64."""
    shells, products = shells.ravel(), (values * weights).ravel()
    if np.iscomplexobj(products):
        parts = (part(products) for part in (np.real, np.imag))
        real, imaginary = (np.bincount(shells, part, count) for part in parts)
        return real + 1j * imaginary
    return np.bincount(shells, products, count)


def resolution_at(curve: Float[np.ndarray, " shells"], threshold: float, grid: Grid) -> float:
    """Give the resolution in Å at which a curve first falls below a threshold.

    Interpolates linearly between shells. A curve that never falls below it gives the last shell.

    Example:
        >>> resolution_at(np.array([1.0, 1.0, 0.6, 0.4]), 0.5, Grid(8, 2.0))
        6.4
    """
    below = np.flatnonzero(curve[1:] < threshold) + 1
    if not below.size:
        return grid.resolution(len(curve) - 1)
    shell = int(below[0])
    if shell == 1:
        return grid.resolution(1)
    step = (curve[shell - 1] - threshold) / (curve[shell - 1] - curve[shell])
    return grid.resolution(shell - 1 + float(step))


def signal_to_noise(curve: Float[np.ndarray, " shells"]) -> Float[np.ndarray, " shells"]:
    """Convert the correlation of two half-maps to the signal-to-noise ratio of one of them."""
    clamped = np.clip(curve, _LEAST_FSC, 1 - _LEAST_FSC)
    return clamped / (1 - clamped)


def ball_shell_average(
    values: Float[np.ndarray, " voxels"], ball: Ball
) -> Float[np.ndarray, " shells"]:
    """Average a real quantity on the ball over shells of the image's Fourier pixels."""
    total, counts = np.zeros((2, ball.radius + 1))
    for part in _blocks(ball):
        shells, share = _coarse(ball.radii[part], ball), ball.weights[part]
        total += shell_sums(values[part], shells, share, len(total))
        counts += np.bincount(shells, share, len(total))
    return total / counts


def shell_prior(
    curve: Float[np.ndarray, " shells"], weights: Float[np.ndarray, " voxels"], ball: Ball
) -> Float[np.ndarray, " shells"]:
    """Estimate the variance of a map's coefficients from the correlation of its halves.

    The noise of a coefficient is one over its weight on the image's own grid, which is
    `oversampling`³ times that of a voxel of the ball: every pixel spreads a total weight of one
    over that many more voxels.

    Args:
        curve: Correlation of two half-maps.
        weights: Sum of squared transfer functions over noise, of one half set (or the mean of two).
        ball: Where `weights` lie.

    Returns:
        Variance per shell, as `wiener` expects; 0 where there are no data.
    """
    average = ball.oversampling**3 * ball_shell_average(weights, ball)
    ratio = signal_to_noise(curve[: len(average)])
    return np.divide(ratio, average, out=np.zeros_like(ratio), where=average > 0)


def wiener(
    values: Complex[np.ndarray, " voxels"],
    weights: Float[np.ndarray, " voxels"],
    ball: Ball,
    prior: Float[np.ndarray, " shells"] | None = None,
) -> Complex[np.ndarray, " voxels"]:
    """Divide backprojected images by their weights, and shrink towards zero where these are low.

    Sums must be folded (`Ball.fold`). Voxels that no image touched stay zero.

    Args:
        values: Sum of images times transfer function over noise.
        weights: Sum of squared transfer functions over noise.
        ball: Where both lie.
        prior: Variance of a coefficient per shell of the image; the last value continues. None
            gives the least-squares estimate. Where it is 0 so is the result.

    Source: Gilles & Singer 2025; the prior counts per voxel of the oversampled ball.
    """
    shrinkage = np.zeros(ball.radius + 1)
    kept = np.ones(ball.radius + 1, np.float32)
    if prior is not None:
        last = np.minimum(np.arange(ball.radius + 1), len(prior) - 1)
        kept = (prior > 0)[last].astype(np.float32)
        np.divide(1 / ball.oversampling**3, prior[last], out=shrinkage, where=kept > 0)
    average = np.zeros(ball.reach + 2)
    counts = np.zeros(ball.reach + 2)
    for part in _blocks(ball):
        radii = ball.radii[part]
        shells = np.rint(radii * ball.oversampling).astype(np.int64)
        total = weights[part] + shrinkage[_coarse(radii, ball)]
        average += shell_sums(total, shells, ball.weights[part], len(average))
        counts += np.bincount(shells, ball.weights[part], len(average))
    np.divide(average, counts, out=average, where=counts > 0)
    floor = np.maximum(_LEAST_WEIGHT * average, np.finfo(np.float32).tiny)
    result = np.zeros(len(ball), np.complex64)
    for part in _blocks(ball):
        radii = ball.radii[part]
        coarse = _coarse(radii, ball)
        shells = np.rint(radii * ball.oversampling).astype(np.int64)
        inside = (weights[part] > 0) & (
            radii * ball.oversampling < ball.radius * ball.oversampling + 1
        )
        total = np.maximum(weights[part] + shrinkage[coarse], floor[shells])
        result[part] = values[part] * (inside * kept[coarse] / total).astype(np.float32)
    return result


def _blocks(ball: Ball) -> Iterator[slice]:
    """Split the voxels, so that temporary arrays are small."""
    return (slice(start, start + _BLOCK) for start in range(0, len(ball), _BLOCK))


def _coarse(radii: Float[np.ndarray, " voxels"], ball: Ball) -> Int[np.ndarray, " voxels"]:
    """Give the image's shells that voxels lie on; the last one continues."""
    return np.minimum(np.rint(radii).astype(np.int64), ball.radius)


def relevance(
    variance: Float[np.ndarray, "z y x"],
    mean: Float[np.ndarray, "z y x"],
    mask: Float[np.ndarray, "z y x"],
    multiple: float,
) -> Float[np.ndarray, "z y x"]:
    """Weigh voxels by how far the variance there exceeds its noise.

    Heterogeneity is local: most voxels of a component hold noise alone. The noise is read off
    where the mean is weakest.

    Args:
        variance: Sum of the squared components, noise included.
        mean: Density of the mean.
        mask: Where density may be, between 0 and 1.
        multiple: How many times the noise is taken off.

    Returns:
        Weights from 0 (noise) to 1.
    """
    blurred = ndimage.gaussian_filter(variance, _BLUR)
    density = ndimage.gaussian_filter(np.abs(mean), _BLUR)
    size = mask.shape[-1]
    axis = np.arange(size) - size // 2
    radii = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    inside = (radii < size / 2 - 3) & (mask > 0.5)
    empty = inside & (density < np.median(density[inside]))
    floor = multiple * float(np.median(blurred[empty]))
    excess = 1 - floor / np.maximum(blurred, np.finfo(np.float32).tiny)
    return np.maximum(excess, 0) ** 2
