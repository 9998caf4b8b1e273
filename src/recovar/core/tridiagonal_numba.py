"""Symmetric matrices made tridiagonal and turned back, for many images side by side.

As in `solve_numba`, the last axis of every table counts the images of a block, and every loop over
it writes one table only.
"""

from typing import no_type_check

import numba
import numpy as np

from recovar.core.solve_numba import subtract_products


@numba.njit(fastmath=True, cache=True, error_model="numpy")
@no_type_check
def tridiagonalize(matrices, vectors, scales, image):
    """Turn symmetric matrices to tridiagonal ones by Householder's method, and vectors along.

    Args:
        matrices: Replaced by the diagonals and those below them; above, row k keeps the normal of
            reflection k from column k + 1 on.
        vectors: Tables (vectors, size, block), turned in place.
        scales: Result: minus twice the inverse squares of the normals.
        image: Scratch (1, size, block).
    """
    size, block = len(matrices), image.shape[2]
    rest, below = np.empty(block), np.empty(block)
    for k in range(size - 2):
        rest[:] = 0
        for i in range(k + 1, size):
            matrices[k, i] = matrices[i, k]
            for s in range(block):
                rest[s] += matrices[k, i, s] * matrices[k, i, s]
        for s in range(block):
            below[s] = np.sqrt(rest[s]) * (-1.0 if matrices[k, k + 1, s] > 0 else 1.0)
        for s in range(block):
            product = rest[s] - below[s] * matrices[k, k + 1, s]
            scales[k, s] = -1 / product if product > 0 else 0.0
        for s in range(block):
            matrices[k, k + 1, s] -= below[s]
        matrices[k + 1, k] = below
        _reflect(matrices, matrices, k, scales, image, k + 1)
        reflect_vectors(vectors, matrices, k, scales)


@numba.njit(fastmath=True, cache=True, error_model="numpy")
@no_type_check
def reflect_vectors(vectors, normals, k, scales):
    """Reflect vectors (vectors, size, block) in place; the normal is row k, from k + 1 on."""
    size = len(normals)
    rest = np.empty(scales.shape[1])
    for vector in range(len(vectors)):
        rest[:] = 0
        subtract_products(rest, vectors, vector, normals, k, k + 1, size)
        for s in range(rest.size):
            rest[s] *= scales[k, s]
        for i in range(k + 1, size):
            for s in range(rest.size):
                vectors[vector, i, s] -= rest[s] * normals[k, i, s]


@numba.njit(fastmath=True, cache=True, error_model="numpy")
@no_type_check
def _reflect(matrices, normals, k, scales, image, first):
    """Reflect symmetric matrices on both sides, rows and columns from `first` ≤ k + 1 on."""
    size = len(matrices)
    rest = np.empty(scales.shape[1])
    # p = A v / h, then A ← A − v wᵀ − w vᵀ with w = p − v (vᵀp)/(2h), and h = |v|²/2.
    for i in range(first, size):
        rest[:] = 0
        subtract_products(rest, matrices, i, normals, k, k + 1, size)
        for s in range(rest.size):
            image[0, i, s] = rest[s] * scales[k, s]
    rest[:] = 0
    subtract_products(rest, image, 0, normals, k, k + 1, size)
    for s in range(rest.size):
        rest[s] *= 0.5 * scales[k, s]
    for i in range(k + 1, size):
        for s in range(rest.size):
            image[0, i, s] -= rest[s] * normals[k, i, s]
    for i in range(k + 1, size):
        for j in range(first, k + 1):
            for s in range(rest.size):
                matrices[i, j, s] -= normals[k, i, s] * image[0, j, s]
        for j in range(k + 1, i + 1):
            for s in range(rest.size):
                matrices[i, j, s] -= (
                    normals[k, i, s] * image[0, j, s] + image[0, i, s] * normals[k, j, s]
                )
        for j in range(first, i):
            matrices[j, i] = matrices[i, j]


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def turn_back(matrices, normals, scales, image):
    """Turn symmetric matrices from the basis that `tridiagonalize` chose to the first one."""
    for k in range(len(normals) - 3, -1, -1):
        _reflect(matrices, normals, k, scales, image, 0)


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def turn_vectors_back(vectors, normals, scales):
    """Turn vectors (vectors, size, block) likewise."""
    for k in range(len(normals) - 3, -1, -1):
        reflect_vectors(vectors, normals, k, scales)
