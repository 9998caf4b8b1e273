"""Many small symmetric systems, one per voxel, solved in place of a batched library call.

A block of systems is factored side by side: the last axis of every table counts the systems of the
block, so that each step is a loop over them that the compiler turns into vector instructions.
Such a loop writes one table only, or the compiler could not tell tables apart.
"""

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Complex, Float

BLOCK = 64
"""Systems that are solved side by side. Kernels get it as an argument: if the compiler knew it, it
would unroll the loops over systems before it could make vectors of them."""
_BLOCKS = 16
"""Blocks of a task."""


@numba.njit(fastmath=True, cache=True, error_model="numpy")
@no_type_check
def subtract_products(value, left, i, right, j, first, last):
    """Subtract Σ left[i, k]·right[j, k] over first ≤ k < last."""
    k = first
    while k + 4 <= last:
        for s in range(value.size):
            value[s] -= (
                left[i, k, s] * right[j, k, s]
                + left[i, k + 1, s] * right[j, k + 1, s]
                + left[i, k + 2, s] * right[j, k + 2, s]
                + left[i, k + 3, s] * right[j, k + 3, s]
            )
        k += 4
    while k < last:
        for s in range(value.size):
            value[s] -= left[i, k, s] * right[j, k, s]
        k += 1


@numba.njit(fastmath=True, cache=True, error_model="numpy")
@no_type_check
def factor(matrices, least):
    """Replace lower triangles by those of Cholesky factors, with inverted diagonals.

    Args:
        matrices: Symmetric; the lower triangles are read.
        least: Smallest squared pivot of every system.
    """
    size = len(matrices)
    value, inverse = np.empty(least.size), np.empty(least.size)
    for j in range(size):
        value[:] = matrices[j, j]
        subtract_products(value, matrices, j, matrices, j, 0, j)
        for s in range(value.size):
            inverse[s] = 1 / np.sqrt(max(value[s], least[s]))
        matrices[j, j] = inverse
        for i in range(j + 1, size):
            value[:] = matrices[i, j]
            subtract_products(value, matrices, i, matrices, j, 0, j)
            for s in range(value.size):
                value[s] *= inverse[s]
            matrices[i, j] = value


@numba.njit(fastmath=True, cache=True, error_model="numpy")
@no_type_check
def substitute(factors, sides):
    """Replace right-hand sides (sides, size, systems) by solutions, given what `factor` left."""
    size = len(factors)
    value = np.empty(factors.shape[2])
    for side in range(len(sides)):
        for i in range(size):
            value[:] = sides[side, i]
            subtract_products(value, factors, i, sides, side, 0, i)
            for s in range(value.size):
                value[s] *= factors[i, i, s]
            sides[side, i] = value
        for i in range(size - 1, -1, -1):
            value[:] = sides[side, i]
            for k in range(i + 1, size):
                for s in range(value.size):
                    value[s] -= factors[k, i, s] * sides[side, k, s]
            for s in range(value.size):
                value[s] *= factors[i, i, s]
            sides[side, i] = value


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _load(matrices, sides, least, curvature, response, prior, ridge, first):
    """Fill a block; where it is longer than the data, the last system is repeated."""
    size = len(matrices)
    for s in range(least.size):
        v = min(first + s, len(prior) - 1)
        trace, entry = 0.0, 0
        for k in range(size):
            trace += curvature[v, entry]
            for m in range(k, size):
                matrices[m, k, s] = curvature[v, entry]
                entry += 1
        least[s] = 1e-12 * trace if trace > 0 else 1.0
        for k in range(size):
            matrices[k, k, s] += prior[v, k] + ridge * trace / size
            sides[0, k, s] = response[v, k].real if trace > 0 else 0.0
            sides[1, k, s] = response[v, k].imag if trace > 0 else 0.0


@numba.njit(parallel=True, cache=True)
@no_type_check
def _solve(curvature, response, prior, ridge, out, block):
    count, size = response.shape
    step = block * _BLOCKS
    for task in numba.prange((count + step - 1) // step):
        matrices = np.empty((size, size, block))
        sides, least = np.empty((2, size, block)), np.empty(block)
        for first in range(task * step, min(count, (task + 1) * step), block):
            _load(matrices, sides, least, curvature, response, prior, ridge, first)
            factor(matrices, least)
            substitute(matrices, sides)
            for s in range(min(block, count - first)):
                for k in range(size):
                    out[first + s, k] = sides[0, k, s] + 1j * sides[1, k, s]


def solve_packed(
    curvature: Float[np.ndarray, "voxels pairs"],
    response: Complex[np.ndarray, "voxels channels"],
    prior: Float[np.ndarray, "voxels channels"],
    ridge: float,
) -> Complex[np.ndarray, "voxels channels"]:
    """Solve (C + diag(prior) + ridge·mean diagonal) x = response at every voxel, in float64.

    Args:
        curvature: Upper triangles of the symmetric matrices C, row by row (`numpy.triu_indices`).
        response: Right-hand sides.
        prior: Added to the diagonals.
        ridge: Share of the average diagonal that is added too.

    Returns:
        Solutions; 0 where the matrix is 0.
    """
    out = np.empty(response.shape, np.complex64)
    _solve(curvature, response, prior, ridge, out, BLOCK)
    return out
