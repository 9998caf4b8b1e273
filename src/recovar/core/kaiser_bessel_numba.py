"""Slices of a volume to five digits: compiled loops over a window of 6³ voxels, all threads.

Estimators make do with trilinear slices. Truth that others are judged by should be exact, so here
every pixel gathers 6³ voxels of the transform on a grid of twice the box. The volume is divided by
the transform of a Kaiser–Bessel window, and the weights are the best for that: relative errors are
5e-6 for white noise in the whole cube and 6e-6 on the worst of its shells, 4e-6 in the sphere.
Windows of 5, 7 and 8 voxels have 4e-5, 6e-7 and 6e-8; on a grid of 1.5 times the box, with half of
the voxels, it takes 7 for 7e-6.

Each image is made alone and in one order, so that no bit depends on others or on the threads.
`no_type_check` keeps the tests' run-time checks out of what numba compiles.

Source: Fessler and Sutton, IEEE Trans. Signal Process. 51 (2003) 560: weights of least
error for a given scaling of the volume, here of least mean square and fitted by polynomials.
"""

from dataclasses import dataclass
from functools import cache, lru_cache, reduce
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Complex, Float, Int
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from scipy.special import i0

from recovar.core.frequencies import Ball, Disc
from recovar.core.slicing_numba import ask
from recovar.core.volumes import sample_transform

_OVERSAMPLING = 2
_WIDTH = 6
"""Voxels of the oversampled transform that a pixel gathers along each axis."""
_BEFORE = _WIDTH // 2 - 1
"""Those of them that lie before the voxel just below the pixel."""
_SHAPE = 2.26 * _WIDTH
"""Shape of the Kaiser–Bessel window, chosen for the least error."""
_DEGREE = 7
"""Degree of the polynomials that stand for the weights, one for each voxel; 5 would be too few."""
_LANES = 8
"""Polynomials that are evaluated at once; the last of them are zero."""
_AHEAD = 8
"""Pixels between asking for voxels and using them."""
_NEAR = 2**24
"""Bytes of voxels that some cache may hold, so that asking would cost more than waiting."""
_RADII = 2
"""Fourier pixels by which the ball must exceed the disc for all that its pixels gather."""

_FLOAT, _INT = ir.FloatType(), ir.IntType(32)
_FUSED = ("contract",)


@no_type_check
def _vector(length):
    return ir.VectorType(_FLOAT, length)


@no_type_check
def _pick(builder, vector, places):
    """Make a vector from some elements of another."""
    chosen = ir.Constant(ir.VectorType(_INT, len(places)), list(places))
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), chosen)


@no_type_check
def _load(builder, pointer, length):
    return builder.load(builder.bitcast(pointer, _vector(length).as_pointer()), align=4)


@no_type_check
def _multiply_add(builder, factor, other, term):
    if term is None:
        return builder.fmul(factor, other)
    return builder.fadd(builder.fmul(factor, other, flags=_FUSED), term, flags=_FUSED)


@no_type_check
def _weigh(builder, polynomials, place):
    """Evaluate the weights of the voxels along one axis, by Horner's rule."""
    vector = ir.Constant(_vector(_LANES), ir.Undefined)
    place = _pick(builder, builder.insert_element(vector, place, _INT(0)), [0] * _LANES)
    weights = _load(builder, polynomials, _LANES)
    for power in range(1, _DEGREE + 1):
        pointer = builder.gep(polynomials, [_INT(power * _LANES)])
        weights = _multiply_add(builder, weights, place, _load(builder, pointer, _LANES))
    return weights


@no_type_check
def _find(context, builder, signature, arguments):
    """Point to the voxels from a column on, on each of the lines around a pixel, plane by plane.

    Of an intrinsic whose arguments begin with values, offsets, line and column.
    """
    values, offsets = (
        context.make_array(kind)(context, builder, argument)
        for kind, argument in zip(signature.args[:2], arguments[:2], strict=True)
    )
    lines_per_plane = cgutils.unpack_tuple(builder, offsets.shape)[1]
    line, column = arguments[2:4]
    pointers = []
    for _ in range(_WIDTH):
        first = builder.gep(offsets.data, [line])
        for row in range(_WIDTH):
            voxel = builder.add(builder.load(builder.gep(first, [_INT(row)])), column)
            pointers.append(builder.gep(values.data, [builder.shl(voxel, voxel.type(1))]))
        line = builder.add(line, lines_per_plane)
    return pointers


@intrinsic
@no_type_check
def _prefetch(typing_context, values, offsets, line, column):
    """Ask for the voxels around a pixel; each stretch of a line lies in two cache lines or one."""

    def generate(context, builder, signature, arguments):
        for pointer in _find(context, builder, signature, arguments):
            for number in (0, 2 * _WIDTH - 1):
                place = builder.gep(pointer, [_INT(number)])
                ask(builder, builder.bitcast(place, cgutils.voidptr_t))
        return context.get_dummy_value()

    return types.void(values, offsets, line, column), generate


@intrinsic
@no_type_check
def _mix(typing_context, values, offsets, line, column, weights, kind, x, y, z):
    """Sum the weighted voxels from the first `line` and `column` on.

    Written for the compiler's vectors, since it finds none in loops over such short lines.
    """

    def generate(context, builder, signature, arguments):
        table = context.make_array(signature.args[4])(context, builder, arguments[4]).data
        stride = ir.Constant(arguments[5].type, (_DEGREE + 1) * _LANES)
        first = builder.gep(table, [builder.mul(arguments[5], stride)])
        x, y, z = (
            _weigh(builder, polynomials, place)
            for polynomials, place in zip((first, table, table), arguments[6:], strict=True)
        )
        pointers = _find(context, builder, signature, arguments)
        total = None
        for plane in range(_WIDTH):
            mixed = None
            for row in range(_WIDTH):
                stretch = _load(builder, pointers[plane * _WIDTH + row], 2 * _WIDTH)
                weight = _pick(builder, y, [row] * 2 * _WIDTH)
                mixed = _multiply_add(builder, stretch, weight, mixed)
            weight = _pick(builder, z, [plane] * 2 * _WIDTH)
            total = _multiply_add(builder, mixed, weight, total)
        total = builder.fmul(total, _pick(builder, x, [k // 2 for k in range(2 * _WIDTH)]))
        pairs = [_pick(builder, total, [2 * k, 2 * k + 1]) for k in range(_WIDTH)]
        total = reduce(builder.fadd, pairs)
        real, imaginary = (builder.extract_element(total, _INT(part)) for part in range(2))
        result = context.make_complex(builder, types.complex64)
        result.real, result.imag = real, imaginary
        return result._getvalue()

    return types.complex64(values, offsets, line, column, weights, kind, x, y, z), generate


@numba.njit(inline="always", cache=True)
@no_type_check
def _locate(rotation, x, y):
    """Give the point's position with x ≥ 0, and whether that is its mate's."""
    gx = x * rotation[0, 0] + y * rotation[1, 0]
    gy = x * rotation[0, 1] + y * rotation[1, 1]
    gz = x * rotation[0, 2] + y * rotation[1, 2]
    return (-gx, -gy, -gz, True) if gx < 0 else (gx, gy, gz, False)


@numba.njit(parallel=True, cache=True, error_model="numpy")
@no_type_check
def _gather(out, values, rotations, xs, ys, order, offsets, reach, weights):
    """Gather all pixels of all images; `order` keeps what pixels in turn need close together."""
    one, two, start, side = np.float32(1), np.float32(2), reach - _BEFORE, len(offsets)
    far = 4 * values.size > _NEAR
    for i in numba.prange(len(out)):
        rotation = rotations[i]
        for n in range(order.size):
            if far:
                later = order[min(n + _AHEAD, order.size - 1)]
                gx, gy, gz, mate = _locate(rotation, xs[later], ys[later])
                line = (np.int64(np.floor(gz)) + start) * side + np.int64(np.floor(gy)) + start
                _prefetch(values, offsets, line, np.int64(gx) - _BEFORE)
            p = order[n]
            gx, gy, gz, mate = _locate(rotation, xs[p], ys[p])
            x, y, z = np.floor(gx), np.floor(gy), np.floor(gz)
            fx = two * np.float32(gx - x) - one
            fy = two * np.float32(gy - y) - one
            fz = two * np.float32(gz - z) - one
            line = (np.int64(z) + start) * side + np.int64(y) + start
            column, before = np.int64(x) - _BEFORE, np.int64(0)
            if column < 0:
                column, before = before, -column
            value = _mix(values, offsets, line, column, weights, before, fx, fy, fz)
            if before > 0:
                line, kind = side * side - 1 - line - (_WIDTH - 1) * (side + 1), _BEFORE + before
                mates = _mix(values, offsets, line, column, weights, kind, fx, -fy, -fz)
                value += mates.conjugate()
            out[i, p] = value.conjugate() if mate else value


@dataclass(frozen=True)
class _Lattice:
    """Where the pixels of a disc gather, and in which order."""

    ball: Ball
    order: Int[np.ndarray, " pixels"]
    x: Float[np.ndarray, " pixels"]
    y: Float[np.ndarray, " pixels"]


@lru_cache(maxsize=4)
def _lattice(disc: Disc) -> _Lattice:
    ball = Ball(disc.size, disc.radius + _RADII, _OVERSAMPLING)
    x, y = (_OVERSAMPLING * axis.astype(np.float64) for axis in (disc.x, disc.y))
    return _Lattice(ball, np.lexsort((disc.x, disc.y)), x, y)


def _fall_off(frequency: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Transform the Kaiser–Bessel window, at frequencies in cycles per oversampled voxel."""
    root = np.sqrt(_SHAPE**2 - (np.pi * _WIDTH * frequency) ** 2)
    return _WIDTH * np.sinh(root) / (root * i0(_SHAPE))


@cache
def _weights() -> Float[np.ndarray, "kinds powers lanes"]:
    """Tabulate polynomials for the weights of the voxels in a row, highest power first.

    Row 0 is for the voxels around a pixel. Row n is for those from x = 0 on if the first n are
    before it, and row n + 2 for the mates of these.
    """
    polynomials = _polynomials()
    table = np.zeros((1 + 2 * _BEFORE, _DEGREE + 1, _LANES), np.float32)
    table[0, :, :_WIDTH] = polynomials
    for before in range(1, _BEFORE + 1):
        table[before, :, : _WIDTH - before] = polynomials[:, before:]
        table[_BEFORE + before, :, 1 : before + 1] = polynomials[:, :before][:, ::-1]
    return table


def _polynomials() -> Float[np.ndarray, "powers voxels"]:
    """Fit the weight of each voxel by a polynomial over −1 … 1, from one voxel to the next.

    The weights turn waves over the volume, divided by the fall-off, into waves at the pixel, with
    the least mean square of errors over the box.
    """
    nodes = np.polynomial.chebyshev.chebpts1(32)
    frequency, share = np.polynomial.legendre.leggauss(32)
    frequency /= 2 * _OVERSAMPLING
    turns = np.outer(frequency, np.append(np.arange(_WIDTH) - _BEFORE, (nodes + 1) / 2))
    scale = np.sqrt(share)[:, None] * np.ones(turns.shape[1])
    scale[:, :_WIDTH] /= _fall_off(frequency)[:, None]
    turns *= 2 * np.pi
    waves = np.concatenate([scale * np.cos(turns), scale * np.sin(turns)])
    weights = np.linalg.lstsq(waves[:, :_WIDTH], waves[:, _WIDTH:])[0]
    return np.polynomial.polynomial.polyfit(nodes, weights.T, _DEGREE)[::-1]


def transform_for_slices(
    volume: Float[np.ndarray, "z y x"], disc: Disc
) -> Complex[np.ndarray, " voxels"]:
    """Transform a volume so that slices of the result are its projections to 1e-5.

    Args:
        volume: Map in a box of `disc.size` voxels.
        disc: Pixels that will be wanted.
    """
    place = np.arange(disc.size) - disc.size // 2
    share = (1 / _fall_off(place / (_OVERSAMPLING * disc.size))).astype(np.float32)
    corrected = volume * share[:, None, None]
    corrected *= share[:, None] * share
    return sample_transform(corrected, _lattice(disc).ball)


def bytes_of_transform(disc: Disc) -> int:
    """Count the bytes that `transform_for_slices` returns."""
    return 8 * len(_lattice(disc).ball)


def slice_accurately(
    values: Complex[np.ndarray, " voxels"], rotations: Float[np.ndarray, "images 3 3"], disc: Disc
) -> Complex[np.ndarray, "images pixels"]:
    """Transform the projections of a volume.

    Args:
        values: The volume as `transform_for_slices` leaves it, for the same disc.
        rotations: Rows are the image axes in the frame of the molecule.
        disc: Pixels wanted of every image.
    """
    lattice = _lattice(disc)
    out = np.empty((len(rotations), len(disc)), np.complex64)
    _gather(
        out,
        values.view(np.float32).reshape(-1, 2),
        np.ascontiguousarray(rotations, np.float64),
        lattice.x,
        lattice.y,
        lattice.order,
        lattice.ball.offsets,
        lattice.ball.reach,
        _weights(),
    )
    return out
