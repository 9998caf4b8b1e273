"""Sampled columns of the covariance of volumes, and which columns to sample.

A column is the covariance of every Fourier coefficient with the one at a frequency ξ. It is kept
as two real volumes, the covariances with the real and the imaginary part, so everything stays on
half spectra. Source: Gilles & Singer 2025; sums are those of their estimator, whitened.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Complex, Float, Int

from recovar.compute.accumulate import Images, Statistic
from recovar.compute.executors import Checkpoint, LocalExecutor
from recovar.core import fourier
from recovar.core.batch import ImageBatch
from recovar.core.columns_numba import add_products, integrate_kernels, subtract_noise
from recovar.core.frequencies import Ball, Disc
from recovar.core.grid import Grid
from recovar.core.masks import soft_edge, sphere
from recovar.core.slicing import Operators, gridding_correction
from recovar.core.slicing_numba import NUMBA
from recovar.covariance_core import Centring, compute_residuals
from recovar.errors import InputError
from recovar.regularization import ball_shell_average, shell_sums, signal_to_noise

BLOCK = 16
"""Columns summed together; few enough that many images meet none of them."""

_LEAST_FSC = 1e-3
"""Averaged correlations are not taken to be lower than this."""

_CHANGE = 1e-2
"""Priors have converged when they change by less than this share."""


@dataclass(frozen=True, kw_only=True)
class ColumnOptions:
    """How columns are chosen, summed and regularized."""

    row_radius: int
    """Largest frequency of the rows, in Fourier pixels."""
    count: int = 300
    """Number of columns; fewer where the ball has no room for more."""
    exclusion: float = 2.0
    """Columns are further apart than this, in Fourier pixels."""
    last_shell: int = 31
    """No column lies beyond this shell."""
    kernel_width: float = 2.0
    """Half width of the triangular kernel around a column's frequency, in Fourier pixels."""
    prior_factor: float = 0.02
    """Divides the prior variance of a column. Components average hundreds of columns, so columns
    are best shrunk less than each for itself (1) or more still for the gain by a mask (8)."""
    iterations: int = 8
    """Most updates of the prior."""
    pooled: bool = True
    """Smooth the correlations that priors are made from over the columns of a block."""


class VarianceSums(eqx.Module):
    """Squared residuals; one channel per half set."""

    squares: Float[np.ndarray, "voxels 2"]
    """Σ C²(|r|² − noise)."""
    weights: Float[np.ndarray, "voxels 2"]
    """Σ C⁴."""
    coverage: Float[np.ndarray, "voxels 2"]
    """Σ C²."""


@dataclass(frozen=True)
class VarianceMap:
    """The diagonal of the covariance, on a ball without oversampling."""

    variance: Float[np.ndarray, " voxels"]
    """Estimated variance of each Fourier coefficient; noise makes it negative in places."""
    coverage: Float[np.ndarray, " voxels"]
    """Sum of squared whitened transfer functions: how well the images know a coefficient."""
    ball: Ball
    """Where both lie."""


class ColumnSums(eqx.Module):
    """Products of residuals for blocks of columns, per half set."""

    products: Complex[np.ndarray, "2 blocks voxels channels"]
    """Σ f·Re p and Σ f·Im p, less noise, at channels 2j and 2j + 1 of column j."""
    weights: Float[np.ndarray, "2 blocks voxels columns"]
    """Σ C²·c."""


@dataclass(frozen=True)
class Columns:
    """Columns of the covariance of volumes."""

    frequencies: Int[np.ndarray, "columns 3"]
    """Frequency (x, y, z) of every column, in Fourier pixels."""
    values: Complex[np.ndarray, "voxels channels"]
    """Covariance with the real and imaginary parts, at channels 2j and 2j + 1."""
    ball: Ball
    """Rows of `values`; no oversampling."""
    fsc: Float[np.ndarray, "columns shells"]
    """Correlation of the two half sets."""
    prior: Float[np.ndarray, "columns shells"]
    """Variance of a coefficient of the column that the correlation implies."""


def variance_statistic(
    centring: Centring, radius: int, operators: Operators
) -> Statistic[VarianceSums]:
    """Sum squared residuals over images; see `estimate_variance`."""
    ball = Ball(centring.ball.size, radius, 1)

    def zeros() -> VarianceSums:
        return VarianceSums(*np.zeros((3, len(ball), 2), np.float32))

    def add(sums: VarianceSums, batch: ImageBatch) -> VarianceSums:
        residual = compute_residuals(batch, centring, radius, operators)
        square = residual.transfer**2
        middle = residual.spread.shape[-1] // 2
        power = np.real(residual.spread[:, middle, middle, None])
        members = (residual.halves[:, None] == [0, 1]).astype(np.float32)
        rest = members, residual.rotations, residual.disc, ball
        excess = np.abs(residual.values) ** 2 - power * square
        return VarianceSums(
            operators.backproject(sums.squares, excess, *rest),
            operators.backproject(sums.weights, square**2, *rest),
            operators.backproject(sums.coverage, square, *rest),
        )

    return Statistic(zeros, add)


def estimate_variance(
    images: Images,
    centring: Centring,
    radius: int,
    executor: LocalExecutor,
    checkpoint: Checkpoint | None = None,
) -> VarianceMap:
    """Estimate the variance of every Fourier coefficient, in one pass.

    Args:
        images: The images.
        centring: What is subtracted from them.
        radius: Largest frequency, in Fourier pixels.
        executor: Who runs the pass.
        checkpoint: Where to keep partial sums.
    """
    statistic = variance_statistic(centring, radius, executor.operators)
    return finish_variance(
        executor.accumulate("Variance", statistic, images, checkpoint),
        Ball(centring.ball.size, radius, 1),
    )


def finish_variance(sums: VarianceSums, ball: Ball) -> VarianceMap:
    """Divide the sums, shrinking each coefficient towards its shell by half-set agreement."""
    squares, weights, coverage = (
        ball.fold(np.asarray(part)) for part in (sums.squares, sums.weights, sums.coverage)
    )
    total = weights.sum(1)
    average = ball_shell_average(total, ball)
    shells = np.minimum(np.rint(ball.radii).astype(np.int64), ball.radius)
    floor = np.maximum(1e-3 * average[shells], np.finfo(np.float32).tiny)
    signal = ball_shell_average(squares.sum(1), ball) / np.maximum(average, 1e-30)
    deviations = squares / np.maximum(weights, floor[:, None]) - signal[shells, None]
    cross = shell_sums(deviations[:, 0] * deviations[:, 1], shells, ball.weights)
    power = shell_sums((deviations**2).mean(1), shells, ball.weights)
    ratio = signal_to_noise(cross / np.maximum(power, 1e-30))
    prior = np.maximum(ratio / np.maximum(0.5 * average, 1e-30), 1e-30)[shells]
    variance = (squares.sum(1) + signal[shells] / prior) / (total + 1 / prior)
    inside = ball.radii <= ball.radius
    return VarianceMap(variance * inside, coverage.sum(1) * inside, ball)


def choose_columns(variance: VarianceMap, options: ColumnOptions) -> Int[np.ndarray, "columns 3"]:
    """Choose frequencies where the variance is large and well measured, kept apart.

    Greedy by variance × coverage. Frequencies come with x ≥ 0: a column at −ξ tells nothing new.

    Returns:
        Frequencies (x, y, z), best first; fewer than asked for where the ball has no more room.
    """
    ball = variance.ball
    score = np.where(
        ball.radii < min(ball.radius, options.last_shell) + 0.5,
        variance.variance * variance.coverage,
        -np.inf,
    )
    points = ball.coordinates[::-1].T
    free = np.isfinite(score)
    chosen: list[Int[np.ndarray, " 3"]] = []
    for voxel in np.argsort(-score, kind="stable"):
        if len(chosen) == options.count:
            break
        if not free[voxel]:
            continue
        point = points[voxel]
        chosen.append(point)
        for mate in (point, -point):
            free &= ((points - mate) ** 2).sum(1) > options.exclusion**2
    return np.array(chosen, np.int32).reshape(-1, 3)


def arrange_blocks(
    frequencies: Int[np.ndarray, "columns 3"], size: int = BLOCK
) -> list[Int[np.ndarray, " _"]]:
    """Share columns out to blocks of neighbouring directions, which meet the same images."""

    def split(rows: Int[np.ndarray, " rows"]) -> list[Int[np.ndarray, " _"]]:
        blocks = -(-len(rows) // size)
        if blocks <= 1:
            return [rows]
        points = directions[rows]
        axis = np.argmax(np.ptp(points, axis=0))
        order = rows[np.argsort(points[:, axis], kind="stable")]
        cut = len(rows) * (blocks // 2) // blocks
        return split(order[:cut]) + split(order[cut:])

    norms = np.maximum(np.linalg.norm(frequencies, axis=1, keepdims=True), 1e-9)
    directions = frequencies / norms
    return [np.sort(block) for block in split(np.arange(len(frequencies)))]


def stack_blocks(
    frequencies: Int[np.ndarray, "columns 3"], blocks: list[Int[np.ndarray, " _"]]
) -> Float[np.ndarray, "blocks most 3"]:
    """Gather the frequencies of blocks in one array, NaN where a block has fewer columns."""
    stacked = np.full((len(blocks), max(len(block) for block in blocks), 3), np.nan, np.float32)
    for row, block in zip(stacked, blocks, strict=True):
        row[: len(block)] = frequencies[block]
    return stacked


def bytes_per_column(radius: int, size: int) -> int:
    """Tell how much memory the sums of one column take."""
    return 2 * len(Ball(size, radius, 1)) * (2 * 8 + 4)


def column_statistic(
    centring: Centring,
    blocks: Float[np.ndarray, "blocks columns 3"],
    options: ColumnOptions,
    operators: Operators,
) -> Statistic[ColumnSums]:
    """Sum products of residuals with their integrals against the columns' kernels.

    Args:
        centring: What is subtracted from images.
        blocks: Frequencies (x, y, z) of columns, NaN where a block has fewer.
        options: Radius and kernel.
        operators: How to slice and backproject.
    """
    size, width = centring.ball.size, options.kernel_width
    ball, rows = Ball(size, options.row_radius, 1), Disc(size, options.row_radius)
    furthest = float(np.nanmax(np.linalg.norm(blocks, axis=-1)))
    radius = kernel_radius(furthest, options, centring.ball.radius)
    shape = (2, len(blocks), len(ball), blocks.shape[1])

    def zeros() -> ColumnSums:
        products = np.zeros((*shape[:3], 2 * shape[3]), np.complex64)
        return ColumnSums(products, np.zeros(shape, np.float32))

    def add(sums: ColumnSums, batch: ImageBatch) -> ColumnSums:
        residual = compute_residuals(batch, centring, radius, operators)
        disc, count, squares = residual.disc, len(rows), residual.transfer**2
        images = residual.halves, residual.rotations
        integrals, shares = integrate_kernels(
            residual.values, squares, images[1], blocks, disc, width
        )
        add_all = add_products if operators is NUMBA else partial(_add_products, operators)
        values = residual.values[:, :count], squares[:, :count]
        add_all(sums.products, sums.weights, *values, integrals, shares, *images, rows, ball)
        noise = residual.transfer, residual.spread
        subtract_noise(sums.products, *noise, *images, blocks, disc, ball, width)
        return sums

    return Statistic(zeros, add)


def _add_products(
    operators: Operators,
    products: Complex[np.ndarray, "2 blocks voxels channels"],
    weights: Float[np.ndarray, "2 blocks voxels columns"],
    values: Complex[np.ndarray, "images pixels"],
    squares: Float[np.ndarray, "images pixels"],
    integrals: Complex[np.ndarray, "blocks images columns"],
    shares: Float[np.ndarray, "blocks images columns"],
    halves: Int[np.ndarray, " images"],
    *geometry: Any,  # noqa: ANN401
) -> None:
    """Do what `add_products` does by any operators."""
    rotations, *places = geometry
    for half, block in np.ndindex(products.shape[:2]):
        met = np.flatnonzero((halves == half) & (shares[block] != 0).any(1))
        rest = rotations[met], *places
        pairs = integrals[block, met].view(np.float32)
        target = products[half, block]
        target[:] = operators.backproject(target, values[met], pairs, *rest)
        target = weights[half, block]
        target[:] = operators.backproject(target, squares[met], shares[block, met], *rest)


def kernel_radius(furthest: float, options: ColumnOptions, limit: int) -> int:
    """Give the radius that holds all rows and all kernels, as far as there are pixels."""
    corner = int(np.ceil(furthest + options.kernel_width * 3**0.5))
    return min(max(options.row_radius, corner), limit)


@dataclass(frozen=True)
class RowFilter:
    """Turns sums of columns into regularized columns: weigh, mask in real space, correlate."""

    ball: Ball
    """Rows, in the smallest box that holds them."""
    window: Float[np.ndarray, "z y x"]
    """Multiplies the rows in real space: masks over the kernel's fall-off."""
    order: Int[np.ndarray, " voxels"]
    """Voxels inside the radius, sorted by shell."""
    starts: Int[np.ndarray, " shells"]
    """Where each shell starts in `order`."""

    @property
    def shells(self) -> Int[np.ndarray, " voxels"]:
        """Shell of every voxel; those beyond the radius count to the last."""
        return np.minimum(np.rint(self.ball.radii).astype(np.int64), self.ball.radius)

    def shell_sums(self, values: Float[np.ndarray, "voxels n"]) -> Float[np.ndarray, "n shells"]:
        """Sum over shells of the full spectrum."""
        weighted = (values * self.ball.weights[:, None])[self.order]
        return np.add.reduceat(weighted, self.starts, axis=0, dtype=np.float64).T

    def finish(
        self,
        products: Complex[np.ndarray, "voxels channels"],
        weights: Float[np.ndarray, "voxels columns"],
        prior: Float[np.ndarray, "columns shells"],
    ) -> Complex[np.ndarray, "voxels channels"]:
        """Divide sums by weights plus inverse prior variance, and mask the result."""
        average = self.shell_sums(weights) / self.shell_sums(np.ones_like(weights[:, :1]))
        floor = 1e-3 * average + 1e-30
        shells = self.shells
        total = np.maximum(weights + (1 / prior).T[shells], floor.T[shells])
        total[self.ball.radii > self.ball.radius] = np.inf
        columns = products / np.repeat(total.astype(np.float32), 2, axis=1)
        cubes = np.moveaxis(self.ball.to_cube(columns), -1, 0)
        volumes = fourier.to_volume(np.ascontiguousarray(cubes)) * self.window
        spectra = np.moveaxis(fourier.to_spectrum(volumes), 0, -1)
        return self.ball.from_cube(spectra).astype(np.complex64)

    def correlate(
        self,
        first: Complex[np.ndarray, "voxels channels"],
        second: Complex[np.ndarray, "voxels channels"],
    ) -> Float[np.ndarray, "columns shells"]:
        """Correlate half sets on shells, both parts of a column together."""

        def total(values: Float[np.ndarray, "voxels channels"]) -> np.ndarray:
            return self.shell_sums(values[:, ::2] + values[:, 1::2])

        cross = total(np.real(first.conj() * second))
        power = total(np.abs(first) ** 2) * total(np.abs(second) ** 2)
        curve = cross / np.sqrt(np.maximum(power, 1e-30))
        curve[:, 0] = curve[:, 1]
        return curve

    def update_prior(
        self,
        curve: Float[np.ndarray, "columns shells"],
        weights: Float[np.ndarray, "voxels columns"],
        prior: Float[np.ndarray, "columns shells"],
    ) -> Float[np.ndarray, "columns shells"]:
        """Find the signal variance that explains a correlation of shrunk half sets.

        Signal passes with power H²/(H+1/π)², noise with H/(H+1/π)².
        """
        total = weights + (1 / prior).T[self.shells]
        noise = self.shell_sums(weights / total**2)
        signal = self.shell_sums(weights**2 / total**2)
        ratio = signal_to_noise(curve.ravel()).reshape(curve.shape)
        return ratio * noise / np.maximum(signal, 1e-30) + 1e-30


def row_filter(size: int, radius: int, mask: Float[np.ndarray, "z y x"] | None = None) -> RowFilter:
    """Prepare the regularization of columns.

    Args:
        size: Box of the images.
        radius: Largest frequency of the rows.
        mask: Soft mask of the volume, or of the part in focus. None is the inscribed sphere.
    """
    box = Grid(size, 1.0).at_radius(radius + 1).size
    ball = Ball(box, radius, 1)
    window = soft_edge(sphere(box))
    if mask is not None:
        spectrum = fourier.crop_spectrum(fourier.to_spectrum(mask), box)
        window = window * fourier.to_volume(spectrum) * (box / size) ** 3
    shells = np.rint(ball.radii).astype(np.int64)
    order = np.argsort(shells, kind="stable")
    order = order[shells[order] <= radius]
    starts = np.searchsorted(shells[order], np.arange(radius + 1))
    window = (window / gridding_correction(box, 1)).astype(np.float32)
    return RowFilter(ball, window, order, starts)


def regularize_columns(
    products: Complex[np.ndarray, "2 voxels channels"],
    weights: Float[np.ndarray, "2 voxels columns"],
    rows: RowFilter,
    options: ColumnOptions,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shrink every column by a prior that the agreement of its half sets implies.

    Args:
        products: Complete, folded sums of both half sets.
        weights: The same of squared transfer functions.
        rows: Masks and shells.
        options: Prior factor and iterations.

    Returns:
        Columns, correlations and priors.
    """
    mean_weight = 0.5 * (weights[0] + weights[1])
    scaled = options.prior_factor * mean_weight
    shape = rows.shell_sums(mean_weight)
    prior = rows.shell_sums(np.ones_like(mean_weight)) / np.maximum(shape, 1e-30)
    curve = np.zeros_like(prior)
    for _ in range(options.iterations):
        halves = [rows.finish(products[h], weights[h], prior) for h in (0, 1)]
        curve = rows.correlate(*halves)
        reliable = pool_correlations(curve) if options.pooled else curve
        updated = rows.update_prior(reliable, scaled, prior)
        updated = np.sqrt(prior * updated)  # Half a step in the logarithm: whole steps can cycle.
        change = np.linalg.norm(updated - prior) / np.linalg.norm(updated)
        prior = updated
        if change < _CHANGE:
            break
    return rows.finish(products.sum(0), weights.sum(0), prior), curve, prior


def pool_correlations(
    curve: Float[np.ndarray, "columns shells"],
) -> Float[np.ndarray, "columns shells"]:
    """Smooth the correlations of a block of columns by a product of column and shell averages.

    The correlation of one column on one shell scatters by more than its usual value, and a prior
    that follows it throws away half of the shells at random.
    """
    sizes = (np.arange(curve.shape[1]) + 0.5) ** 2
    columns = np.maximum(curve @ sizes / sizes.sum(), _LEAST_FSC)
    shells = np.maximum(curve.mean(0), _LEAST_FSC)
    return columns[:, None] * shells / columns.mean()


def estimate_columns(
    images: Images,
    centring: Centring,
    frequencies: Int[np.ndarray, "columns 3"],
    options: ColumnOptions,
    executor: LocalExecutor,
    *,
    mask: Float[np.ndarray, "z y x"] | None = None,
    memory: int | None = None,
    place: Callable[[str], Checkpoint] | None = None,
) -> Columns:
    """Estimate columns of the covariance, in as many passes as the memory allows.

    Args:
        images: The images.
        centring: What is subtracted from them; its radius limits that of the kernels.
        frequencies: Frequency (x, y, z) of every column.
        options: Row radius, kernel and priors.
        executor: Who runs the passes.
        mask: Soft mask of the volume, or of the part in focus.
        memory: Bytes that the sums of a pass may take; None is no limit.
        place: Makes the place where the state of a pass, by its name, outlives the process.

    Raises:
        InputError: If not even one column fits in the memory.
    """
    size = centring.ball.size
    ball = Ball(size, options.row_radius, 1)
    rows = row_filter(size, options.row_radius, mask)
    values = np.zeros((len(ball), 2 * len(frequencies)), np.complex64)
    curves, priors = np.zeros((2, len(frequencies), options.row_radius + 1))
    passes = plan_passes(arrange_blocks(frequencies), options.row_radius, size, memory)
    for number, part in enumerate(passes):
        title = f"Columns ({sum(map(len, part))} of {len(frequencies)})"
        statistic = column_statistic(
            centring, stack_blocks(frequencies, part), options, executor.operators
        )
        checkpoint = place(f"columns-{number + 1}-of-{len(passes)}") if place else None
        sums = executor.accumulate(title, statistic, images, checkpoint)
        if checkpoint:
            _keep(checkpoint, sums, len(images))
        for row, block in enumerate(part):
            used = len(block)
            products = np.array([ball.fold(half[row, :, : 2 * used]) for half in sums.products])
            weights = np.array([ball.fold(half[row, :, :used]) for half in sums.weights])
            shrunk = regularize_columns(products, weights, rows, options)
            values[:, np.stack([2 * block, 2 * block + 1], axis=1).ravel()] = shrunk[0]
            curves[block], priors[block] = shrunk[1:]
    return Columns(frequencies, values, ball, curves, priors)


def _keep(checkpoint: Checkpoint, sums: ColumnSums, done: int) -> None:
    """Save complete sums, so that a kill in a later pass does not cost this one."""
    checkpoint.save(done=done, sum0000=sums.products, sum0001=sums.weights)


def plan_passes(
    blocks: list[Int[np.ndarray, " _"]], radius: int, size: int, memory: int | None
) -> list[list[Int[np.ndarray, " _"]]]:
    """Share blocks of columns out to passes of nearly equal size whose sums fit in memory.

    Args:
        blocks: Columns of every block.
        radius: Largest frequency of the rows.
        size: Box of the images.
        memory: Bytes that the sums of a pass may take; None is no limit.

    Raises:
        InputError: If not even one block fits.
    """
    each = BLOCK * bytes_per_column(radius, size)
    most = len(blocks) if memory is None else memory // each
    if most < 1:
        raise InputError(
            f"Expected at least {each / 1e9:.3g} GB of memory for the sums of {BLOCK} columns, got "
            f"{(memory or 0) / 1e9:.3g} GB. Raise the ceiling with --memory."
        )
    parts = np.array_split(np.arange(len(blocks)), -(-len(blocks) // most))
    return [[blocks[number] for number in part] for part in parts]
