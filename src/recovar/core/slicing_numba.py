"""The CPU path of the waist: compiled loops, all threads, no atomics, the same sums every time.

Slicing first locates all pixels of an image and then asks for voxels a few pixels ahead, because
waiting for memory, not arithmetic, is what it costs. Backprojection sorts the pixels of a batch by
the line (z, y) of voxels they touch; then every voxel collects from the pixels around it, so that
sums are read and written once per batch, each by one thread and in one order.

`no_type_check` keeps the tests' run-time checks out of what numba compiles.
"""

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Complex, Float, Inexact
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from recovar.core.frequencies import Ball, Disc
from recovar.core.gram_numba import TILE, add_gram
from recovar.core.slicing import Operators

_AHEAD = 8
"""Pixels between asking for voxels and using them."""
_CHUNK = 256
"""Pixels that are compared at a time; 22 channels of them fill half of a level-1 cache or so."""
_IMAGES = 8
"""Images of a task."""
_GROUP = 4
"""Pixels that are added at a time."""
_VECTOR = 16
"""Weights are padded to multiples of this, for loops without remainder."""
_LINE = 64
"""Bytes of a cache line."""


@no_type_check
def ask(builder, pointer):
    """Compile a request for the cache line that a pointer points to."""
    number = ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, number, number, number])
    function = builder.module.declare_intrinsic("llvm.prefetch", [cgutils.voidptr_t], kind)
    reading, keep, data = (ir.Constant(number, value) for value in (0, 3, 1))
    builder.call(function, [pointer, reading, keep, data])


@intrinsic
@no_type_check
def _prefetch(typing_context, array, row, byte):
    """Ask for the cache line at a byte of a row of a 2-D array."""

    def generate(context, builder, signature, arguments):
        table = context.make_array(signature.args[0])(context, builder, arguments[0])
        stride = cgutils.unpack_tuple(builder, table.strides)[0]
        place = builder.add(builder.mul(arguments[1], stride), arguments[2])
        ask(builder, builder.gep(builder.bitcast(table.data, cgutils.voidptr_t), [place]))
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp), generate


@numba.njit(inline="always", cache=True)
@no_type_check
def _locate(rotation, x, y, oversampling):
    """Give the point's position with x ≥ 0, and −1 if its mate was taken, else 1."""
    gx = oversampling * (x * rotation[0, 0] + y * rotation[1, 0])
    gy = oversampling * (x * rotation[0, 1] + y * rotation[1, 1])
    gz = oversampling * (x * rotation[0, 2] + y * rotation[1, 2])
    sign = np.float32(-1) if gx < 0 else np.float32(1)
    return gx * sign, gy * sign, gz * sign, sign


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _surround(voxels, shares, signs, rotation, xs, ys, offsets, reach, oversampling):
    """List for every pixel its four pairs of voxels along x, and the weights of all eight."""
    one = np.float32(1)
    for p in range(xs.size):
        gx, gy, gz, sign = _locate(rotation, xs[p], ys[p], oversampling)
        x, y, z = np.floor(gx), np.floor(gy), np.floor(gz)
        fx, fy, fz = gx - x, gy - y, gz - z
        column, row, plane = np.int32(x), np.int32(y) + reach, np.int32(z) + reach
        voxels[p, 0] = offsets[plane, row] + column
        voxels[p, 1] = offsets[plane, row + 1] + column
        voxels[p, 2] = offsets[plane + 1, row] + column
        voxels[p, 3] = offsets[plane + 1, row + 1] + column
        for dz in range(2):
            for dy in range(2):
                share = (fz if dz else one - fz) * (fy if dy else one - fy)
                shares[p, 4 * dz + 2 * dy] = share * (one - fx)
                shares[p, 4 * dz + 2 * dy + 1] = share * fx
        signs[p] = sign


@numba.njit(fastmath=True, cache=True, error_model="numpy")
@no_type_check
def _interpolate(target, volumes, voxels, shares, p):
    """Mix the voxels around a pixel, having asked for those of a pixel further on."""
    width = volumes.shape[1]
    ahead = min(p + _AHEAD, voxels.shape[0] - 1)
    for pair in range(4):
        for byte in range(0, 8 * width + _LINE - 1, _LINE):
            _prefetch(volumes, voxels[ahead, pair], byte)
    a, b, c, d = voxels[p, 0], voxels[p, 1], voxels[p, 2], voxels[p, 3]
    wa, va, wb, vb = shares[p, 0], shares[p, 1], shares[p, 2], shares[p, 3]
    wc, vc, wd, vd = shares[p, 4], shares[p, 5], shares[p, 6], shares[p, 7]
    for k in range(width):
        target[k] = (
            wa * volumes[a, k]
            + va * volumes[a + 1, k]
            + wb * volumes[b, k]
            + vb * volumes[b + 1, k]
            + wc * volumes[c, k]
            + vc * volumes[c + 1, k]
            + wd * volumes[d, k]
            + vd * volumes[d + 1, k]
        )


@numba.njit(parallel=True, cache=True, error_model="numpy")
@no_type_check
def _gather(out, volumes, rotations, xs, ys, offsets, reach, oversampling):
    """Interpolate; complex numbers are pairs of floats, the channels contiguous."""
    images, pixels = out.shape[0], xs.size
    for task in numba.prange((images + _IMAGES - 1) // _IMAGES):
        voxels, shares = np.empty((pixels, 4), np.int64), np.empty((pixels, 8), np.float32)
        signs = np.empty(pixels, np.float32)
        for i in range(task * _IMAGES, min(images, (task + 1) * _IMAGES)):
            _surround(voxels, shares, signs, rotations[i], xs, ys, offsets, reach, oversampling)
            for p in range(pixels):
                target = out[i, p]
                _interpolate(target, volumes, voxels, shares, p)
                if signs[p] < 0:
                    for k in range(1, target.size, 2):
                        target[k] = -target[k]


@numba.njit(parallel=True, cache=True, error_model="numpy")
@no_type_check
def _compare(
    gram,
    response,
    volumes,
    values,
    transfer,
    rotations,
    xs,
    ys,
    roots,
    offsets,
    reach,
    oversampling,
):
    """Multiply an image's projections, and the image as one more, with each other in cache."""
    images, pixels, channels = len(gram), xs.size, volumes.shape[1] // 2
    rows = (channels + TILE) // TILE * TILE
    for task in numba.prange((images + _IMAGES - 1) // _IMAGES):
        voxels, shares = np.empty((pixels, 4), np.int64), np.empty((pixels, 8), np.float32)
        signs, mixed = np.empty(pixels, np.float32), np.empty(2 * channels, np.float32)
        samples, total = np.zeros((rows, 2 * _CHUNK), np.float32), np.empty((rows, rows))
        for i in range(task * _IMAGES, min(images, (task + 1) * _IMAGES)):
            _surround(voxels, shares, signs, rotations[i], xs, ys, offsets, reach, oversampling)
            total[:] = 0
            for first in range(0, pixels, _CHUNK):
                count = min(_CHUNK, pixels - first)
                for n in range(count):
                    p = first + n
                    _interpolate(mixed, volumes, voxels, shares, p)
                    real = transfer[i, p] * roots[p]
                    imaginary = signs[p] * real
                    for k in range(channels):
                        samples[k, n] = real * mixed[2 * k]
                        samples[k, count + n] = imaginary * mixed[2 * k + 1]
                    samples[channels, n] = roots[p] * values[i, p].real
                    samples[channels, count + n] = roots[p] * values[i, p].imag
                add_gram(samples, 2 * count, total)
            for j in range(channels):
                response[i, j] = total[j, channels]
                for k in range(j, channels):
                    gram[i, j, k] = total[j, k]
                    gram[i, k, j] = total[j, k]


@numba.njit(parallel=True, cache=True, error_model="numpy")
@no_type_check
def _sort(values, odd, active, rotations, xs, ys, near, reach, oversampling, parts):
    """Sort pixels by the line of their lower corner; those far from all wanted planes are left out.

    Returns:
        Where each line starts, and of every pixel: image, x of the corner, distances from the
        corner (x, y, z) and values, those that are `odd` with the sign of the mate that was taken.
    """
    images, pixels, side = rotations.shape[0], xs.size, 2 * reach + 1
    lines = np.empty((images, pixels), np.int32)
    counts = np.zeros((parts, side * side + 1), np.int64)
    for part in numba.prange(parts):
        for i in range(part * images // parts, (part + 1) * images // parts):
            if active[i]:
                for p in range(pixels):
                    _, gy, gz, _ = _locate(rotations[i], xs[p], ys[p], oversampling)
                    plane = np.int32(np.floor(gz)) + reach
                    line = plane * side + np.int32(np.floor(gy)) + reach
                    lines[i, p] = line if near[plane] else -1
                for p in range(pixels):
                    counts[part, lines[i, p] + 1] += lines[i, p] >= 0
    starts = np.zeros(side * side + 1, np.int64)
    for line in range(side * side):
        total = starts[line]
        for part in range(parts):
            share = counts[part, line + 1]
            counts[part, line + 1] = total
            total += share
        starts[line + 1] = total
    image, column = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.int32)
    above = np.empty((3, starts[-1]), np.float32)
    value = np.empty((odd.size, starts[-1]), np.float32)
    for part in numba.prange(parts):
        for i in range(part * images // parts, (part + 1) * images // parts):
            for p in range(pixels if active[i] else 0):
                if lines[i, p] >= 0:
                    entry = counts[part, lines[i, p] + 1]
                    counts[part, lines[i, p] + 1] += 1
                    gx, gy, gz, sign = _locate(rotations[i], xs[p], ys[p], oversampling)
                    image[entry], column[entry] = i, np.int32(np.floor(gx))
                    above[0, entry] = gx - np.floor(gx)
                    above[1, entry] = gy - np.floor(gy)
                    above[2, entry] = gz - np.floor(gz)
                    for kind in range(odd.size):
                        here = values[i * pixels + p, kind]
                        value[kind, entry] = sign * here if odd[kind] else here
    return starts, image, column, above, value


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _lines_around(starts, plane, row, side):
    """Bound the entries of the four lines whose pixels touch a line of voxels."""
    bounds = np.zeros((4, 2), np.int64)
    for corner in range(4):
        z, y = plane - corner // 2, row - corner % 2
        if z >= 0 and y >= 0:
            bounds[corner] = starts[z * side + y], starts[z * side + y + 1]
    return bounds


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _count_touches(heads, ends, bounds, column):
    """Make room for what each voxel of a line collects, in whole groups; return all room."""
    ends[:] = 0
    for corner in range(4):
        for entry in range(bounds[corner, 0], bounds[corner, 1]):
            ends[column[entry]] += 1
            ends[column[entry] + 1] += 1
    top = 0
    for x in range(ends.size):
        heads[x] = top
        top += (ends[x] + _GROUP - 1) // _GROUP * _GROUP
        ends[x] = heads[x]
    heads[ends.size] = top
    return top


@numba.njit(fastmath=True, cache=True, error_model="numpy")
@no_type_check
def _list_touches(rows, scales, ends, bounds, image, column, above, value):
    """List the images, and the factors of their weights, that each voxel of a line collects."""
    one = np.float32(1)
    for corner in range(4):
        dz, dy = corner // 2, corner % 2
        for entry in range(bounds[corner, 0], bounds[corner, 1]):
            share = above[2, entry] if dz else one - above[2, entry]
            share *= above[1, entry] if dy else one - above[1, entry]
            x, fx = column[entry], above[0, entry]
            first, second = ends[x], ends[x + 1]
            ends[x], ends[x + 1] = first + 1, second + 1
            rows[first] = rows[second] = image[entry]
            for kind in range(value.shape[0]):
                scales[kind, first] = share * (one - fx) * value[kind, entry]
                scales[kind, second] = share * fx * value[kind, entry]


@numba.njit(fastmath=True, cache=True, error_model="numpy")
@no_type_check
def _add_weights(collected, weights, rows, scales, first, last):
    """Add weight vectors times scales, one group at a time."""
    for m in range(first, last, _GROUP):
        a, b, c, d = rows[m], rows[m + 1], rows[m + 2], rows[m + 3]
        ra, rb, rc, rd = scales[0, m], scales[0, m + 1], scales[0, m + 2], scales[0, m + 3]
        if collected.shape[0] == 1:
            for k in range(weights.shape[1]):
                collected[0, k] += (
                    ra * weights[a, k]
                    + rb * weights[b, k]
                    + rc * weights[c, k]
                    + rd * weights[d, k]
                )
        else:
            ia, ib, ic, id_ = scales[1, m], scales[1, m + 1], scales[1, m + 2], scales[1, m + 3]
            for k in range(weights.shape[1]):
                wa, wb, wc, wd = weights[a, k], weights[b, k], weights[c, k], weights[d, k]
                collected[0, k] += ra * wa + rb * wb + rc * wc + rd * wd
                collected[1, k] += ia * wa + ib * wb + ic * wc + id_ * wd


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _collect_line(sums, weights, offset, length, heads, rows, scales):
    """Let every voxel of a line collect what was listed for it."""
    kinds, width = len(scales), sums.shape[1]
    collected = np.empty((kinds, weights.shape[1]), np.float32)
    for x in range(length):
        voxel = offset + x
        for byte in range(0, 4 * width + _LINE - 1, _LINE):
            _prefetch(sums, voxel + 1, byte)
        if heads[x] < heads[x + 1]:
            collected[:] = 0
            _add_weights(collected, weights, rows, scales, heads[x], heads[x + 1])
            for kind in range(kinds):
                for k in range(width // kinds):
                    sums[voxel, kinds * k + kind] += collected[kind, k]


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _collect_planes(
    sums, weights, kinds, offsets, lengths, starts, image, column, above, value, part, parts
):
    """Let every voxel of every `parts`-th plane collect."""
    side = len(offsets)
    heads, ends = np.empty(side // 2 + 3, np.int64), np.empty(side // 2 + 2, np.int64)
    rows, scales = np.empty(0, np.int32), np.empty((len(value), 0), np.float32)
    for plane in range(part, side, parts):
        for row in range(side):
            bounds = _lines_around(starts, plane, row, side)
            if lengths[plane, row] == 0 or (bounds[:, 0] == bounds[:, 1]).all():
                continue
            room = _count_touches(heads, ends, bounds, column)
            if room > rows.size:
                rows = np.empty(2 * room, np.int32)
                scales = np.empty((len(value), 2 * room), np.float32)
            rows[:room] = 0
            scales[:, :room] = 0
            _list_touches(rows, scales, ends, bounds, image, column, above, value)
            first = 0
            for n in range(len(sums)):
                _collect_line(
                    sums[n],
                    weights[n],
                    offsets[plane, row],
                    lengths[plane, row],
                    heads,
                    rows,
                    scales[first : first + kinds[n]],
                )
                first += kinds[n]


@numba.njit(parallel=True, cache=True)
@no_type_check
def _collect(sums, weights, kinds, offsets, lengths, starts, image, column, above, value, parts):
    """Let every voxel collect from the pixels around it; planes are dealt to the threads."""
    for part in numba.prange(parts):
        _collect_planes(
            sums, weights, kinds, offsets, lengths, starts, image, column, above, value, part, parts
        )


def _points(disc: Disc) -> tuple[np.ndarray, np.ndarray]:
    return disc.x.astype(np.float32), disc.y.astype(np.float32)


def _lattice(ball: Ball) -> tuple[np.ndarray, int, np.float32]:
    return ball.offsets, ball.reach, np.float32(ball.oversampling)


def _interleaved(volumes: Complex[np.ndarray, "voxels channels"]) -> np.ndarray:
    return np.ascontiguousarray(volumes, np.complex64).view(np.float32)


def slice_volumes(
    volumes: Complex[np.ndarray, "voxels channels"],
    rotations: Float[np.ndarray, "images 3 3"],
    disc: Disc,
    ball: Ball,
) -> Complex[np.ndarray, "images pixels channels"]:
    """Interpolate volumes on the central planes of images; see `slicing.slice_volumes`."""
    out = np.empty((len(rotations), len(disc), volumes.shape[1]), np.complex64)
    _gather(
        out.view(np.float32),
        _interleaved(volumes),
        np.ascontiguousarray(rotations, np.float32),
        *_points(disc),
        *_lattice(ball),
    )
    return out


def inner_products(
    volumes: Complex[np.ndarray, "voxels channels"],
    values: Complex[np.ndarray, "images pixels"],
    transfer: Float[np.ndarray, "images pixels"],
    rotations: Float[np.ndarray, "images 3 3"],
    disc: Disc,
    ball: Ball,
) -> tuple[Float[np.ndarray, "images channels channels"], Float[np.ndarray, "images channels"]]:
    """Compare images with projections, without storing them; see `slicing.inner_products`."""
    images, channels = len(rotations), volumes.shape[1]
    gram = np.empty((images, channels, channels), np.float32)
    response = np.empty((images, channels), np.float32)
    _compare(
        gram,
        response,
        _interleaved(volumes),
        np.ascontiguousarray(values, np.complex64),
        np.ascontiguousarray(transfer, np.float32),
        np.ascontiguousarray(rotations, np.float32),
        *_points(disc),
        np.sqrt(disc.multiplicity),
        *_lattice(ball),
    )
    return gram, response


def backproject(
    sums: Inexact[np.ndarray, "voxels channels"],
    values: Inexact[np.ndarray, "images pixels"],
    weights: Float[np.ndarray, "images channels"],
    rotations: Float[np.ndarray, "images 3 3"],
    disc: Disc,
    ball: Ball,
) -> Inexact[np.ndarray, "voxels channels"]:
    """Add images to `sums` in place and return it; see `slicing.backproject`.

    `sums` must be contiguous, float32 for real values and complex64 for complex ones. Images whose
    weights are all zero cost nothing.
    """
    return backproject_many((sums,), (values,), (weights,), rotations, disc, ball)[0]


def backproject_many(
    sums: tuple[Inexact[np.ndarray, "voxels _"], ...],
    values: tuple[Inexact[np.ndarray, "images pixels"], ...],
    weights: tuple[Float[np.ndarray, "images _"], ...],
    rotations: Float[np.ndarray, "images 3 3"],
    disc: Disc,
    ball: Ball,
) -> tuple[Inexact[np.ndarray, "voxels _"], ...]:
    """Add images to several sums in place; see `slicing.backproject_many`."""
    tables = [_scaled(v, disc, np.iscomplexobj(s)) for s, v in zip(sums, values, strict=True)]
    kinds = np.array([table.shape[1] for table in tables])
    offsets, reach, oversampling = _lattice(ball)
    stored = np.append(ball.lengths.any(1), [False])
    entries = _sort(
        tables[0] if len(tables) == 1 else np.concatenate(tables, axis=1),
        np.concatenate([np.arange(kind) == 1 for kind in kinds]),
        np.any([w.any(1) for w in weights], axis=0),
        np.ascontiguousarray(rotations, np.float32),
        *_points(disc),
        stored[:-1] | stored[1:],
        reach,
        oversampling,
        numba.get_num_threads(),
    )
    _collect(
        tuple(part.view(np.float32) for part in sums),
        tuple(_padded(part) for part in weights),
        kinds,
        offsets,
        ball.lengths,
        *entries,
        numba.get_num_threads(),
    )
    return sums


def _scaled(values: np.ndarray, disc: Disc, is_complex: bool) -> np.ndarray:
    """Scale to the convention of the adjoint, one row per pixel: real or real and imaginary."""
    kind = np.complex64 if is_complex else np.float32
    scaled = np.multiply(values, disc.multiplicity / 2, dtype=kind, order="C")
    return scaled.view(np.float32).reshape(scaled.size, -1)


def _padded(weights: np.ndarray) -> np.ndarray:
    images, channels = weights.shape
    padded = np.zeros((images, -(-channels // _VECTOR) * _VECTOR), np.float32)
    padded[:, :channels] = weights
    return padded


NUMBA = Operators(slice_volumes, backproject, inner_products, backproject_many)
"""Compiled loops on all cores."""
