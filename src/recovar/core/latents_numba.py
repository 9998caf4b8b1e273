"""The posterior of latent coordinates and contrast, for many images side by side.

As in `solve_numba`, the last axis of every table counts the images of a block, and every loop over
it writes one table only.
"""

from typing import no_type_check

import numba
import numpy as np

from recovar.core.solve_numba import factor, subtract_products

BLOCK = 32
"""Images that are treated side by side."""
_LOGARITHMS = 16
"""Pivots that are multiplied before the logarithm is taken; their product stays finite."""


@numba.njit(fastmath=True, cache=True, error_model="numpy")
@no_type_check
def _tridiagonalize(matrices, vectors, normal, image, rest):
    """Turn symmetric matrices to tridiagonal ones, and vectors (2, size, block) along.

    Householder's method; `normal`, `image` (1, size, block) and `rest` (block) are scratch.
    """
    size, block = len(matrices), rest.size
    scale, other = np.empty(block), np.empty(block)
    for k in range(size - 2):
        rest[:] = 0
        for i in range(k + 1, size):
            normal[0, i] = matrices[i, k]
            for s in range(block):
                rest[s] += normal[0, i, s] * normal[0, i, s]
        for s in range(block):
            other[s] = np.sqrt(rest[s]) * (-1.0 if normal[0, k + 1, s] > 0 else 1.0)
        for s in range(block):
            product = rest[s] - other[s] * normal[0, k + 1, s]
            scale[s] = -1 / product if product > 0 else 0.0
        for s in range(block):
            normal[0, k + 1, s] -= other[s]
        matrices[k + 1, k] = other
        # p = A v / h, then A ← A − v wᵀ − w vᵀ with w = p − v (vᵀp)/(2h), and h = |v|²/2.
        for i in range(k + 1, size):
            rest[:] = 0
            subtract_products(rest, matrices, i, normal, 0, k + 1, size)
            for s in range(block):
                image[0, i, s] = rest[s] * scale[s]
        rest[:] = 0
        subtract_products(rest, image, 0, normal, 0, k + 1, size)
        for s in range(block):
            other[s] = 0.5 * rest[s] * scale[s]
        for i in range(k + 1, size):
            for s in range(block):
                image[0, i, s] -= other[s] * normal[0, i, s]
        for i in range(k + 1, size):
            for j in range(k + 1, size):
                for s in range(block):
                    matrices[i, j, s] -= (
                        normal[0, i, s] * image[0, j, s] + image[0, i, s] * normal[0, j, s]
                    )
        for vector in range(len(vectors)):
            rest[:] = 0
            subtract_products(rest, vectors, vector, normal, 0, k + 1, size)
            for s in range(block):
                other[s] = rest[s] * scale[s]
            for i in range(k + 1, size):
                for s in range(block):
                    vectors[vector, i, s] -= other[s] * normal[0, i, s]


@numba.njit(fastmath=True, cache=True, error_model="numpy")
@no_type_check
def _weigh_contrast(score, contrast, sd, matrices, vectors, ends):
    """Evaluate the log posterior of a contrast per image, z integrated out.

    Args:
        score: Result.
        contrast: Where to evaluate.
        sd: Prior standard deviation of the contrast about 1.
        matrices: UᵀAᵀAU, tridiagonal.
        vectors: UᵀAᵀy and UᵀAᵀAμ.
        ends: μᵀAᵀy and μᵀAᵀAμ.
    """
    size, block = len(matrices), score.size
    inverse, ratio, pull = np.zeros(block), np.zeros(block), np.zeros(block)
    pivot, product = np.empty(block), np.ones(block)
    for s in range(block):
        score[s] = contrast[s] * (ends[0, s] - 0.5 * contrast[s] * ends[1, s])
    for s in range(block):
        score[s] -= 0.5 * ((contrast[s] - 1) / sd) ** 2
    for i in range(size):
        # One step of I + a² UᵀAᵀAU = L D Lᵀ; no pivot of such a matrix is below 1.
        if i:
            for s in range(block):
                ratio[s] = contrast[s] * contrast[s] * matrices[i, i - 1, s] * inverse[s]
        for s in range(block):
            pull[s] = (
                contrast[s] * (vectors[0, i, s] - contrast[s] * vectors[1, i, s])
                - ratio[s] * pull[s]
            )
        if i:
            for s in range(block):
                pivot[s] = matrices[i, i, s] - ratio[s] * matrices[i, i - 1, s]
        else:
            pivot[:] = matrices[i, i]
        for s in range(block):
            pivot[s] = max(1 + contrast[s] * contrast[s] * pivot[s], 1.0)
        for s in range(block):
            inverse[s] = 1 / pivot[s]
        for s in range(block):
            score[s] += 0.5 * pull[s] * pull[s] * inverse[s]
        for s in range(block):
            product[s] *= pivot[s]
        if i % _LOGARITHMS == _LOGARITHMS - 1 or i == size - 1:
            for s in range(block):
                score[s] -= 0.5 * np.log(product[s])
            product[:] = 1


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _find_contrast(contrast, variance, sd, grid, limits, matrices, vectors, ends):
    """Maximize over the contrast: scan, then Newton's method by differences."""
    block = contrast.size
    score, best, tried = np.empty(block), np.full(block, -np.inf), np.empty(block)
    for a in grid:
        tried[:] = a
        _weigh_contrast(score, tried, sd, matrices, vectors, ends)
        for s in range(block):
            if score[s] > best[s]:
                best[s], contrast[s] = score[s], a
    above, below = np.empty(block), np.empty(block)
    step = grid[1] - grid[0]
    for width in (step, step / 4, step / 16, step / 16):
        _weigh_contrast(best, contrast, sd, matrices, vectors, ends)
        tried[:] = contrast + width
        _weigh_contrast(above, tried, sd, matrices, vectors, ends)
        tried[:] = contrast - width
        _weigh_contrast(below, tried, sd, matrices, vectors, ends)
        for s in range(block):
            curvature = (above[s] - 2 * best[s] + below[s]) / width**2
            curvature = min(curvature, -0.1 / sd**2)
            move = (above[s] - below[s]) / (2 * width * curvature)
            move = min(max(move, -2 * step), 2 * step)
            contrast[s] = min(max(contrast[s] - move, limits[0]), limits[1])
            variance[s] = -1 / curvature


@numba.njit(fastmath=True, cache=True, error_model="numpy")
@no_type_check
def _invert(factors):
    """Replace the Cholesky factors that `factor` left by the inverse matrices."""
    size, value = len(factors), np.empty(factors.shape[2])
    # Rows of the inverse factor L⁻¹ go to the upper triangle, as columns.
    for j in range(size):
        for i in range(j + 1, size):
            value[:] = 0
            subtract_products(value, factors, i, factors, j, j, i)
            for s in range(value.size):
                value[s] *= factors[i, i, s]
            factors[j, i] = value
    for i in range(size):
        for j in range(i + 1):
            value[:] = 0
            subtract_products(value, factors, i, factors, j, i, size)
            for s in range(value.size):
                value[s] = -value[s]
            factors[i, j] = value
    for i in range(size):
        for j in range(i):
            factors[j, i] = factors[i, j]


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _load(matrices, vectors, ends, gram, response, first):
    """Fill a block; where it is longer than the data, the last image is repeated."""
    size = len(matrices)
    for s in range(ends.shape[1]):
        n = min(first + s, len(gram) - 1)
        ends[0, s], ends[1, s] = response[n, 0], gram[n, 0, 0]
        for i in range(size):
            vectors[0, i, s], vectors[1, i, s] = response[n, i + 1], gram[n, i + 1, 0]
            for j in range(size):
                matrices[i, j, s] = gram[n, i + 1, j + 1]


@numba.njit(fastmath=True, cache=True, error_model="numpy")
@no_type_check
def _solve(matrices, vectors, contrast, least, value):
    """Replace UᵀAᵀAU by the posterior covariance, and the first vector by the mean."""
    size = len(matrices)
    for i in range(size):
        for j in range(size):
            for s in range(value.size):
                matrices[i, j, s] *= contrast[s] * contrast[s]
        for s in range(value.size):
            matrices[i, i, s] += 1
        for s in range(value.size):
            value[s] = contrast[s] * (vectors[0, i, s] - contrast[s] * vectors[1, i, s])
        vectors[1, i] = value
    factor(matrices, least)
    _invert(matrices)
    for i in range(size):
        value[:] = 0
        subtract_products(value, matrices, i, vectors, 1, 0, size)
        for s in range(value.size):
            value[s] = -value[s]
        vectors[0, i] = value


@numba.njit(parallel=True, cache=True)
@no_type_check
def infer_blocks(means, covariances, contrasts, variances, gram, response, sd, grid, limits, block):
    """Fill in the posterior of every image; `sd` 0 keeps the contrasts that are given."""
    count, size = means.shape
    for task in numba.prange((count + block - 1) // block):
        matrices, tridiagonal = np.empty((size, size, block)), np.empty((size, size, block))
        vectors, turned = np.empty((2, size, block)), np.empty((2, size, block))
        ends, least, value = np.empty((2, block)), np.ones(block), np.empty(block)
        normal, image = np.empty((1, size, block)), np.empty((1, size, block))
        contrast, variance = np.ones(block), np.zeros(block)
        _load(matrices, vectors, ends, gram, response, task * block)
        if sd > 0:
            tridiagonal[:] = matrices
            turned[:] = vectors
            _tridiagonalize(tridiagonal, turned, normal, image, value)
            _find_contrast(contrast, variance, sd, grid, limits, tridiagonal, turned, ends)
        _solve(matrices, vectors, contrast, least, value)
        for s in range(min(block, count - task * block)):
            n = task * block + s
            contrasts[n], variances[n] = contrast[s], variance[s]
            for i in range(size):
                means[n, i] = vectors[0, i, s]
                for j in range(size):
                    covariances[n, i, j] = matrices[i, j, s]
