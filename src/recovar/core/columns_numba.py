"""Compiled loops over the few pixels of every image that lie near a column of the covariance.

A column's kernel is a triangle of a given half width in each coordinate around its frequency ξ.
A slice meets it only if it passes nearby, and then in about a dozen pixels.

`no_type_check` keeps the tests' run-time checks out of what numba compiles.
"""

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Complex, Float, Int

from recovar.core.frequencies import Ball, Disc

_FAST = {"reassoc", "contract", "arcp", "nsz"}
"""Liberties that leave NaN alone."""


def pixel_table(disc: Disc) -> Int[np.ndarray, "y x"]:
    """Number every pixel of the full plane, (0, 0) in the middle.

    Returns:
        1 + index where the pixel is stored, −1 − index where its Friedel mate is, else 0.
    """
    reach = disc.radius
    table = np.zeros((2 * reach + 1, 2 * reach + 1), np.int32)
    index = np.arange(1, len(disc) + 1, dtype=np.int32)
    table[reach - disc.y, reach - disc.x] = -index
    table[reach + disc.y, reach + disc.x] = index
    return table


@numba.njit(inline="always", cache=True)
@no_type_check
def _meets(rotation, point, width):
    """Tell whether the central plane passes through the cube of half side `width` at a point."""
    distance = rotation[2, 0] * point[0] + rotation[2, 1] * point[1] + rotation[2, 2] * point[2]
    extent = abs(rotation[2, 0]) + abs(rotation[2, 1]) + abs(rotation[2, 2])
    return abs(distance) < width * extent


@numba.njit(inline="always", cache=True)
@no_type_check
def _kernel(rotation, x, y, point, width):
    """Evaluate the triangular kernel around `point` at the pixel (x, y) of a slice."""
    value = np.float32(1)
    for axis in range(3):
        distance = abs(x * rotation[0, axis] + y * rotation[1, axis] - point[axis])
        value *= max(np.float32(0), np.float32(1) - distance / width)
    return value


@numba.njit(inline="always", cache=True)
@no_type_check
def _nearest(rotation, point):
    """Find the pixel of a slice that is nearest to a point."""
    x = rotation[0, 0] * point[0] + rotation[0, 1] * point[1] + rotation[0, 2] * point[2]
    y = rotation[1, 0] * point[0] + rotation[1, 1] * point[1] + rotation[1, 2] * point[2]
    return int(np.rint(x)), int(np.rint(y))


@numba.njit(parallel=True, cache=True, error_model="numpy")
@no_type_check
def _integrate(products, weights, values, squares, rotations, points, table, width):
    reach = table.shape[0] // 2
    margin = int(np.ceil(width * 1.7320508)) + 1
    for i in numba.prange(rotations.shape[0]):
        rotation = rotations[i]
        for block, j in np.ndindex(points.shape[:2]):
            point = points[block, j]
            if not _meets(rotation, point, width):
                continue
            px, py = _nearest(rotation, point)
            real, imaginary, weight = np.float32(0), np.float32(0), np.float32(0)
            for y in range(max(py - margin, -reach), min(py + margin, reach) + 1):
                for x in range(max(px - margin, -reach), min(px + margin, reach) + 1):
                    entry = table[y + reach, x + reach]
                    if entry == 0:
                        continue
                    share = _kernel(rotation, np.float32(x), np.float32(y), point, width)
                    if share == 0:
                        continue
                    pixel = abs(entry) - 1
                    real += share * values[i, pixel].real
                    imaginary += np.sign(entry) * share * values[i, pixel].imag
                    weight += share * squares[i, pixel]
            products[block, i, j] = complex(real, imaginary)
            weights[block, i, j] = weight


def integrate_kernels(
    values: Complex[np.ndarray, "images pixels"],
    squares: Float[np.ndarray, "images pixels"],
    rotations: Float[np.ndarray, "images 3 3"],
    points: Float[np.ndarray, "blocks columns 3"],
    disc: Disc,
    width: float,
) -> tuple[
    Complex[np.ndarray, "blocks images columns"], Float[np.ndarray, "blocks images columns"]
]:
    """Sum every image, and its squared transfer function, against the kernel of every column.

    Args:
        values: Hermitian images on the disc.
        squares: Real, centrosymmetric images on the disc.
        rotations: Rows are the image axes in the frame of the molecule.
        points: Frequency (x, y, z) of every column in Fourier pixels; NaN where there is none.
        disc: Pixels of the images; the whole plane is summed, mates included.
        width: Half width of the triangular kernel in Fourier pixels.

    Returns:
        Both sums; zero for most pairs, as most slices pass by a column's frequency.
    """
    shape = (len(points), len(rotations), points.shape[1])
    products, weights = np.zeros(shape, np.complex64), np.zeros(shape, np.float32)
    _integrate(
        products,
        weights,
        np.ascontiguousarray(values, np.complex64),
        np.ascontiguousarray(squares, np.float32),
        np.ascontiguousarray(rotations, np.float32),
        np.ascontiguousarray(points, np.float32),
        pixel_table(disc),
        np.float32(width),
    )
    return products, weights


@numba.njit(inline="always", cache=True)
@no_type_check
def _locate(rotation, x, y):
    """Give the point's position with x ≥ 0, and −1 where its mate was taken."""
    gx = x * rotation[0, 0] + y * rotation[1, 0]
    gy = x * rotation[0, 1] + y * rotation[1, 1]
    gz = x * rotation[0, 2] + y * rotation[1, 2]
    sign = np.float32(-1) if gx < 0 else np.float32(1)
    return sign * gx, sign * gy, sign * gz, sign


@numba.njit(parallel=True, fastmath=True, cache=True, error_model="numpy")
@no_type_check
def _add(
    products, weights, values, squares, pairs, shares, halves, rotations, xs, ys, offsets, reach
):
    """One thread owns the sums of one block and half set, so no two write to the same place."""
    blocks = shares.shape[0]
    columns, channels = shares.shape[2], pairs.shape[2]
    for task in numba.prange(2 * blocks):
        half, block = task // blocks, task % blocks
        term, square = np.empty(2 * channels, np.float32), np.empty(columns, np.float32)
        for i in range(rotations.shape[0]):
            if halves[i] != half or not np.any(shares[block, i]):
                continue
            pair, share = pairs[block, i], shares[block, i]
            for p in range(xs.size):
                gx, gy, gz, sign = _locate(rotations[i], xs[p], ys[p])
                x, y, z = int(np.floor(gx)), int(np.floor(gy)), int(np.floor(gz))
                fx, fy, fz = gx - x, gy - y, gz - z
                real, imaginary = values[i, p].real, sign * values[i, p].imag
                for k in range(channels):
                    term[2 * k] = real * pair[k]
                    term[2 * k + 1] = imaginary * pair[k]
                for k in range(columns):
                    square[k] = squares[i, p] * share[k]
                for corner in range(4):
                    dz, dy = corner // 2, corner % 2
                    part = (fz if dz else np.float32(1) - fz) * (fy if dy else np.float32(1) - fy)
                    low, high = part * (np.float32(1) - fx), part * fx
                    voxel = offsets[z + dz + reach, y + dy + reach] + x
                    first = products[half, block, voxel]
                    second = products[half, block, voxel + 1]
                    for k in range(2 * channels):
                        first[k] += low * term[k]
                        second[k] += high * term[k]
                    first = weights[half, block, voxel]
                    second = weights[half, block, voxel + 1]
                    for k in range(columns):
                        first[k] += low * square[k]
                        second[k] += high * square[k]


def add_products(
    products: Complex[np.ndarray, "2 blocks voxels channels"],
    weights: Float[np.ndarray, "2 blocks voxels columns"],
    values: Complex[np.ndarray, "images pixels"],
    squares: Float[np.ndarray, "images pixels"],
    integrals: Complex[np.ndarray, "blocks images columns"],
    shares: Float[np.ndarray, "blocks images columns"],
    halves: Int[np.ndarray, " images"],
    rotations: Float[np.ndarray, "images 3 3"],
    disc: Disc,
    ball: Ball,
) -> None:
    """Backproject images with their integrals as weights, all blocks of columns at once.

    Adds in place what `backproject` would: values times the real and imaginary parts of integrals
    to `products`, squares times shares to `weights`, in the sums of the image's half set. Images
    that meet no column of a block are skipped.
    """
    scale = disc.multiplicity / 2
    _add(
        products.view(np.float32),
        weights,
        np.multiply(values, scale, dtype=np.complex64),
        np.multiply(squares, scale, dtype=np.float32),
        np.ascontiguousarray(integrals, np.complex64).view(np.float32),
        np.ascontiguousarray(shares, np.float32),
        halves,
        np.ascontiguousarray(rotations, np.float32),
        disc.x.astype(np.float32),
        disc.y.astype(np.float32),
        ball.offsets,
        ball.reach,
    )


@numba.njit(inline="always", cache=True)
@no_type_check
def _deposit(sums, channel, real, imaginary, rotation, x, y, offsets, reach):
    """Take ½η away at a pixel's eight voxels from Re, and ½iη from Im, of one column."""
    gx, gy, gz, sign = _locate(rotation, x, y)
    a, b = np.float32(-0.5) * real, np.float32(-0.5) * imaginary
    c, d = -b, sign * a
    b = sign * b
    x0, y0, z0 = int(np.floor(gx)), int(np.floor(gy)), int(np.floor(gz))
    fx, fy, fz = gx - x0, gy - y0, gz - z0
    for corner in range(4):
        dz, dy = corner // 2, corner % 2
        share = (fz if dz else np.float32(1) - fz) * (fy if dy else np.float32(1) - fy)
        voxel = offsets[z0 + dz + reach, y0 + dy + reach] + x0
        for dx in range(2):
            weight = share * (fx if dx else np.float32(1) - fx)
            target = sums[voxel + dx]
            target[channel] += weight * a
            target[channel + 1] += weight * b
            target[channel + 2] += weight * c
            target[channel + 3] += weight * d


@numba.njit(parallel=True, fastmath=_FAST, cache=True, error_model="numpy")
@no_type_check
def _subtract(
    products, transfer, spread, halves, rotations, points, table, width, offsets, reach, rows
):
    """One thread owns the channels of its columns, so no two write to the same place."""
    window = spread.shape[1] // 2
    columns = points.shape[1]
    plane = table.shape[0] // 2
    margin = int(np.ceil(width * 1.7320508)) + 1
    far = max(window, margin)
    side = 2 * (margin + window) + 1
    for task in numba.prange(points.shape[0] * columns):
        block, j = task // columns, task % columns
        point = points[block, j]
        if np.isnan(point[0]):
            continue
        local = np.empty((side, side, 2), np.float32)
        for i in range(rotations.shape[0]):
            rotation = rotations[i]
            if not _meets(rotation, point, width):
                continue
            px, py = _nearest(rotation, point)
            local[:] = 0
            found = False
            for y in range(max(-margin, -plane - py), min(margin, plane - py) + 1):
                for x in range(max(-margin, -plane - px), min(margin, plane - px) + 1):
                    entry = table[y + py + plane, x + px + plane]
                    if entry == 0:
                        continue
                    share = _kernel(rotation, np.float32(x + px), np.float32(y + py), point, width)
                    if share == 0:
                        continue
                    found = True
                    share *= transfer[i, abs(entry) - 1]
                    for dy in range(2 * window + 1):
                        line = local[y + margin + dy]
                        source = spread[i, dy]
                        for dx in range(2 * window + 1):
                            line[x + margin + dx, 0] += share * source[dx, 0]
                            line[x + margin + dx, 1] += share * source[dx, 1]
            if not found:
                continue
            for y in range(max(-far, -plane - py), min(far, plane - py) + 1):
                for x in range(max(-far, -plane - px), min(far, plane - px) + 1):
                    entry = table[y + py + plane, x + px + plane]
                    pixel = abs(entry) - 1
                    if pixel < 0 or pixel >= rows:
                        continue
                    value = local[y + margin + window, x + margin + window]
                    if value[0] == 0 and value[1] == 0:
                        continue
                    _deposit(
                        products[halves[i], block],
                        4 * j,
                        transfer[i, pixel] * value[0],
                        transfer[i, pixel] * value[1],
                        rotation,
                        np.float32(x + px),
                        np.float32(y + py),
                        offsets,
                        reach,
                    )


def subtract_noise(
    products: Complex[np.ndarray, "2 blocks voxels channels"],
    transfer: Float[np.ndarray, "images pixels"],
    spread: Complex[np.ndarray, "images dy dx"],
    halves: Int[np.ndarray, " images"],
    rotations: Float[np.ndarray, "images 3 3"],
    points: Float[np.ndarray, "blocks columns 3"],
    disc: Disc,
    ball: Ball,
    width: float,
) -> None:
    """Take away, in place, what white noise adds to the products of an image with itself.

    For the column at ξ with kernel K the expected product at pixel k is
    η(k) = Σ_l C(k) G(k−l) C(l) K(l); its Hermitian parts belong to the real and imaginary
    functionals, channels 2j and 2j + 1.

    Args:
        products: Sums on the ball without oversampling, before `Ball.fold`.
        transfer: C of every image, on `disc`.
        spread: G near the origin, odd sides, (0, 0) in the middle: the noise covariance between
            pixels of a masked image. A single 1 for images without a mask.
        halves: Half set of every image.
        rotations: Rows are the image axes in the frame of the molecule.
        points: Frequency (x, y, z) of every column in Fourier pixels; NaN where there is none.
        disc: Pixels that the kernels were summed over.
        ball: Where `products` lie; pixels beyond its radius were not added and are left out.
        width: Half width of the triangular kernel in Fourier pixels.
    """
    _subtract(
        products.view(np.float32),
        np.ascontiguousarray(transfer, np.float32),
        np.ascontiguousarray(spread, np.complex64).view(np.float32).reshape(*spread.shape, 2),
        halves,
        np.ascontiguousarray(rotations, np.float32),
        np.ascontiguousarray(points, np.float32),
        pixel_table(disc),
        np.float32(width),
        ball.offsets,
        ball.reach,
        disc.count(ball.radius),
    )
