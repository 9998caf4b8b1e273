"""The CPU path of the waist: compiled loops, all threads, no atomics, the same sums every time.

Backprojection sorts the pixels of a batch by the line (z, y) of voxels they touch. Work is shared
out by planes: first the even ones, then the odd ones, so that no two threads meet in a plane and
every voxel is added to in one fixed order, whatever the number of threads.

`no_type_check` keeps the tests' run-time checks out of what numba compiles.
"""

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Complex, Float, Inexact

from recovar.core.frequencies import Ball, Disc
from recovar.core.slicing import Operators


@numba.njit(inline="always", cache=True)
@no_type_check
def _locate(rotation, x, y, oversampling):
    """Give the point's position with x ≥ 0, and whether its mate was taken."""
    gx = oversampling * (x * rotation[0, 0] + y * rotation[1, 0])
    gy = oversampling * (x * rotation[0, 1] + y * rotation[1, 1])
    gz = oversampling * (x * rotation[0, 2] + y * rotation[1, 2])
    if gx < 0:
        return -gx, -gy, -gz, True
    return gx, gy, gz, False


@numba.njit(parallel=True, fastmath=True, cache=True, error_model="numpy")
@no_type_check
def _gather(out, volumes, rotations, xs, ys, offsets, reach, oversampling):
    """Interpolate; complex numbers are pairs of floats, the channels contiguous."""
    channels = volumes.shape[1]
    for i in numba.prange(out.shape[0]):
        rotation = rotations[i]
        for p in range(xs.size):
            gx, gy, gz, mate = _locate(rotation, xs[p], ys[p], oversampling)
            x, y, z = int(np.floor(gx)), int(np.floor(gy)), int(np.floor(gz))
            fx, fy, fz = gx - x, gy - y, gz - z
            a = offsets[z + reach, y + reach] + x
            b = offsets[z + reach, y + 1 + reach] + x
            c = offsets[z + 1 + reach, y + reach] + x
            d = offsets[z + 1 + reach, y + 1 + reach] + x
            wa = (np.float32(1) - fz) * (np.float32(1) - fy)
            wb = (np.float32(1) - fz) * fy
            wc = fz * (np.float32(1) - fy)
            wd = fz * fy
            ex = np.float32(1) - fx
            target = out[i, p]
            for k in range(channels):
                target[k] = ex * (
                    wa * volumes[a, k]
                    + wb * volumes[b, k]
                    + wc * volumes[c, k]
                    + wd * volumes[d, k]
                ) + fx * (
                    wa * volumes[a + 1, k]
                    + wb * volumes[b + 1, k]
                    + wc * volumes[c + 1, k]
                    + wd * volumes[d + 1, k]
                )
            if mate:
                for k in range(channels // 2):
                    target[2 * k + 1] = -target[2 * k + 1]


@numba.njit(parallel=True, cache=True)
@no_type_check
def _sort(rotations, xs, ys, reach, oversampling, parts):
    """Sort all (image, pixel) pairs by the line of their lower corner: order and line starts."""
    images, pixels, side = rotations.shape[0], xs.size, 2 * reach + 1
    lines = np.empty((images, pixels), np.int32)
    counts = np.zeros((parts, side * side + 1), np.int64)
    for part in numba.prange(parts):
        for i in range(part * images // parts, (part + 1) * images // parts):
            for p in range(pixels):
                _, gy, gz, _ = _locate(rotations[i], xs[p], ys[p], oversampling)
                line = (int(np.floor(gz)) + reach) * side + int(np.floor(gy)) + reach
                lines[i, p] = line
                counts[part, line + 1] += 1
    starts = np.zeros(side * side + 1, np.int64)
    for line in range(side * side):
        total = starts[line]
        for part in range(parts):
            share = counts[part, line + 1]
            counts[part, line + 1] = total
            total += share
        starts[line + 1] = total
    order = np.empty(images * pixels, np.int64)
    for part in numba.prange(parts):
        for i in range(part * images // parts, (part + 1) * images // parts):
            for p in range(pixels):
                line = lines[i, p]
                order[counts[part, line + 1]] = i * pixels + p
                counts[part, line + 1] += 1
    return order, starts


@numba.njit(parallel=True, fastmath=True, cache=True, error_model="numpy")
@no_type_check
def _scatter(
    sums,
    values,
    weights,
    rotations,
    xs,
    ys,
    offsets,
    reach,
    oversampling,
    order,
    starts,
):
    """Add sorted pixels to the voxels; values are (pixels, 1 or 2) floats, real or complex."""
    side, pixels, parts = 2 * reach + 1, xs.size, values.shape[1]
    channels = weights.shape[1]
    for parity in range(2):
        for half_plane in numba.prange(reach + 1 - parity):
            plane = 2 * half_plane + parity
            term = np.empty(parts * channels, np.float32)
            for entry in range(starts[plane * side], starts[(plane + 1) * side]):
                item = order[entry]
                i, p = item // pixels, item % pixels
                gx, gy, gz, mate = _locate(rotations[i], xs[p], ys[p], oversampling)
                x, y, z = int(np.floor(gx)), int(np.floor(gy)), int(np.floor(gz))
                fx, fy, fz = gx - x, gy - y, gz - z
                if parts == 1:
                    for k in range(channels):
                        term[k] = values[item, 0] * weights[i, k]
                else:
                    real = values[item, 0]
                    imaginary = -values[item, 1] if mate else values[item, 1]
                    for k in range(channels):
                        term[2 * k] = real * weights[i, k]
                        term[2 * k + 1] = imaginary * weights[i, k]
                for corner in range(4):
                    dz, dy = corner // 2, corner % 2
                    share = (fz if dz else np.float32(1) - fz) * (fy if dy else np.float32(1) - fy)
                    low = share * (np.float32(1) - fx)
                    high = share * fx
                    voxel = offsets[z + dz + reach, y + dy + reach] + x
                    first, second = sums[voxel], sums[voxel + 1]
                    for k in range(parts * channels):
                        first[k] += low * term[k]
                        second[k] += high * term[k]


def _tables(disc: Disc, ball: Ball) -> tuple:
    return disc.x.astype(np.float32), disc.y.astype(np.float32), ball.offsets, ball.reach


def slice_volumes(
    volumes: Complex[np.ndarray, "voxels channels"],
    rotations: Float[np.ndarray, "images 3 3"],
    disc: Disc,
    ball: Ball,
) -> Complex[np.ndarray, "images pixels channels"]:
    """Interpolate volumes on the central planes of images; see `slicing.slice_volumes`."""
    out = np.empty((len(rotations), len(disc), volumes.shape[1]), np.complex64)
    volumes = np.ascontiguousarray(volumes, np.complex64).view(np.float32)
    xs, ys, offsets, reach = _tables(disc, ball)
    _gather(
        out.view(np.float32),
        volumes,
        np.ascontiguousarray(rotations, np.float32),
        xs,
        ys,
        offsets,
        reach,
        np.float32(ball.oversampling),
    )
    return out


def backproject(
    sums: Inexact[np.ndarray, "voxels channels"],
    values: Inexact[np.ndarray, "images pixels"],
    weights: Float[np.ndarray, "images channels"],
    rotations: Float[np.ndarray, "images 3 3"],
    disc: Disc,
    ball: Ball,
) -> Inexact[np.ndarray, "voxels channels"]:
    """Add images to `sums` in place and return it; see `slicing.backproject`.

    `sums` must be contiguous, float32 for real values and complex64 for complex ones.
    """
    kind = np.complex64 if np.iscomplexobj(sums) else np.float32
    scaled = np.multiply(values, disc.multiplicity / 2, dtype=kind)
    rotations = np.ascontiguousarray(rotations, np.float32)
    xs, ys, offsets, reach = _tables(disc, ball)
    oversampling = np.float32(ball.oversampling)
    order, starts = _sort(rotations, xs, ys, reach, oversampling, numba.get_num_threads())
    _scatter(
        sums.view(np.float32),
        scaled.view(np.float32).reshape(scaled.size, -1),
        np.ascontiguousarray(weights, np.float32),
        rotations,
        xs,
        ys,
        offsets,
        reach,
        oversampling,
        order,
        starts,
    )
    return sums


NUMBA = Operators(slice_volumes, backproject)
"""Compiled loops on all cores."""
