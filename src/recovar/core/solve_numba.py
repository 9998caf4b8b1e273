"""Many small symmetric systems, one per voxel, solved in place of a batched library call."""

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Complex, Float


@numba.njit(parallel=True, fastmath=True, cache=True, error_model="numpy")
@no_type_check
def _solve(curvature, response, prior, ridge, out):
    """Factor each system by Cholesky in float64 and substitute."""
    count, size = response.shape
    for v in numba.prange(count):
        factor = np.empty((size, size))
        real, imaginary = np.empty(size), np.empty(size)
        trace, entry = 0.0, 0
        for k in range(size):
            trace += curvature[v, entry]
            for m in range(k, size):
                factor[m, k] = curvature[v, entry]
                entry += 1
        if trace <= 0:
            out[v] = 0
            continue
        for k in range(size):
            factor[k, k] += prior[v, k] + ridge * trace / size
        for j in range(size):
            pivot = factor[j, j]
            for k in range(j):
                pivot -= factor[j, k] * factor[j, k]
            pivot = np.sqrt(max(pivot, 1e-12 * trace))
            factor[j, j] = pivot
            for i in range(j + 1, size):
                value = factor[i, j]
                for k in range(j):
                    value -= factor[i, k] * factor[j, k]
                factor[i, j] = value / pivot
        for i in range(size):
            a, b = np.float64(response[v, i].real), np.float64(response[v, i].imag)
            for k in range(i):
                a -= factor[i, k] * real[k]
                b -= factor[i, k] * imaginary[k]
            real[i], imaginary[i] = a / factor[i, i], b / factor[i, i]
        for i in range(size - 1, -1, -1):
            a, b = real[i], imaginary[i]
            for k in range(i + 1, size):
                a -= factor[k, i] * real[k]
                b -= factor[k, i] * imaginary[k]
            real[i], imaginary[i] = a / factor[i, i], b / factor[i, i]
        for i in range(size):
            out[v, i] = real[i] + 1j * imaginary[i]


def solve_packed(
    curvature: Float[np.ndarray, "voxels pairs"],
    response: Complex[np.ndarray, "voxels channels"],
    prior: Float[np.ndarray, "voxels channels"],
    ridge: float,
) -> Complex[np.ndarray, "voxels channels"]:
    """Solve (C + diag(prior) + ridge·mean diagonal) x = response at every voxel.

    Args:
        curvature: Upper triangles of the symmetric matrices C, row by row (`numpy.triu_indices`).
        response: Right-hand sides.
        prior: Added to the diagonals.
        ridge: Share of the average diagonal that is added too.

    Returns:
        Solutions; 0 where the matrix is 0.
    """
    out = np.empty(response.shape, np.complex64)
    _solve(curvature, response, prior, ridge, out)
    return out
