"""The posterior of latent coordinates and contrast, for many images side by side.

As in `solve_numba`, the last axis of every table counts the images of a block, and every loop over
it writes one table only.
"""

from typing import no_type_check

import numba
import numpy as np

from recovar.core.solve_numba import factor, subtract_products
from recovar.core.tridiagonal_numba import tridiagonalize, turn_back, turn_vectors_back

BLOCK = 32
"""Images that are treated side by side."""
_LOGARITHMS = 16
"""Pivots that are multiplied before the logarithm is taken; their product stays finite."""


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
    for width in (step / 4, step / 16, step / 64, step / 64):
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


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _place_nodes(nodes, shares, evidence, contrast, variance, rule, sd, matrices, vectors, ends):
    """Choose contrasts about the likeliest ones, and their shares of the posterior.

    Args:
        nodes: Result: contrasts (nodes, block).
        shares: Result: their probabilities, which add up to 1.
        evidence: Result: logarithm of the likelihood, the contrast integrated out as well.
        contrast: Likeliest contrasts; replaced by the means.
        variance: Inverse curvatures there; replaced by the variances.
        rule: Nodes of a Gauss-Hermite rule, and logarithms of weights over the normal density.
        sd: Prior standard deviation of the contrast about 1.
        matrices: UᵀAᵀAU, tridiagonal.
        vectors: UᵀAᵀy and UᵀAᵀAμ.
        ends: μᵀAᵀy and μᵀAᵀAμ.
    """
    count, block = nodes.shape
    for k in range(count):
        nodes[k] = contrast + rule[0, k] * np.sqrt(variance)
        _weigh_contrast(shares[k], nodes[k], sd, matrices, vectors, ends)
    for s in range(block):
        largest, total = -np.inf, 0.0
        for k in range(count):
            shares[k, s] += rule[1, k]
            largest = max(largest, shares[k, s])
        for k in range(count):
            shares[k, s] = np.exp(shares[k, s] - largest)
            total += shares[k, s]
        evidence[s] = largest + np.log(total * np.sqrt(variance[s] / (2 * np.pi)) / sd)
        mean, square = 0.0, 0.0
        for k in range(count):
            shares[k, s] /= total
            mean += shares[k, s] * nodes[k, s]
        for k in range(count):
            square += shares[k, s] * (nodes[k, s] - mean) ** 2
        contrast[s], variance[s] = mean, square


@numba.njit(fastmath=True, cache=True, error_model="numpy")
@no_type_check
def _find_means(means, ratios, inverses, contrast, matrices, vectors):
    """Compute the mean of z at one contrast per image, in the tridiagonal basis.

    Args:
        means: Result (size, block).
        ratios: Result: subdiagonals of L, from 1 on, in I + a² UᵀAᵀAU = L D Lᵀ.
        inverses: Result: diagonal of D⁻¹.
        contrast: Where to evaluate.
        matrices: UᵀAᵀAU, tridiagonal.
        vectors: UᵀAᵀy and UᵀAᵀAμ.
    """
    size, block = len(matrices), contrast.size
    power, value = contrast * contrast, np.empty(block)
    ratios[0] = 0
    ratios[size] = 0
    for i in range(size):
        for s in range(block):
            value[s] = 1 + power[s] * matrices[i, i, s]
        for s in range(block):
            means[i, s] = contrast[s] * (vectors[0, i, s] - contrast[s] * vectors[1, i, s])
        if i:
            for s in range(block):
                ratios[i, s] = power[s] * matrices[i, i - 1, s] * inverses[i - 1, s]
            for s in range(block):
                value[s] -= ratios[i, s] * power[s] * matrices[i, i - 1, s]
            for s in range(block):
                means[i, s] -= ratios[i, s] * means[i - 1, s]
        for s in range(block):
            inverses[i, s] = 1 / max(value[s], 1.0)
    for i in range(size):
        for s in range(block):
            means[i, s] *= inverses[i, s]
    for i in range(size - 2, -1, -1):
        for s in range(block):
            means[i, s] -= ratios[i + 1, s] * means[i + 1, s]


@numba.njit(fastmath=True, cache=True, error_model="numpy")
@no_type_check
def _step_up(rows, ratios, inverses, i):
    """Turn rows i + 1 of the inverses of L D Lᵀ to rows i, from the diagonal on.

    Lᵀ times the inverse is D⁻¹ L⁻¹, which is 0 above the diagonal.
    """
    count, size, block = len(rows), inverses.shape[1], rows.shape[2]
    for k in range(count):
        for s in range(block):
            rows[k, i, s] = inverses[k, i, s]
        if i + 1 < size:
            for s in range(block):
                rows[k, i, s] += ratios[k, i + 1, s] * ratios[k, i + 1, s] * rows[k, i + 1, s]
        for j in range(i + 1, size):
            for s in range(block):
                rows[k, j, s] *= -ratios[k, i + 1, s]


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
def _solve(matrices, vectors, least, value):
    """Replace UᵀAᵀAU by the covariance of z at contrast 1, and the first vector by the mean."""
    size = len(matrices)
    for i in range(size):
        for s in range(value.size):
            matrices[i, i, s] += 1
        for s in range(value.size):
            value[s] = vectors[0, i, s] - vectors[1, i, s]
        vectors[1, i] = value
    factor(matrices, least)
    _invert(matrices)
    for i in range(size):
        value[:] = 0
        subtract_products(value, matrices, i, vectors, 1, 0, size)
        for s in range(value.size):
            value[s] = -value[s]
        vectors[0, i] = value


@numba.njit(fastmath=True, cache=True, error_model="numpy")
@no_type_check
def _integrate(first, second, nodes, weights, matrices, vectors):
    """Average the posterior of z over contrasts, in the tridiagonal basis.

    Args:
        first: Result: E(z), E(a z) and E(a² z), (3, size, block).
        second: Result: covariance of z, and E(a² z zᵀ) if there is room,
            (1 or 2, size, size, block).
        nodes: Contrasts (nodes, block).
        weights: Their probabilities, these times a, and times a², (3, nodes, block).
        matrices: UᵀAᵀAU, tridiagonal.
        vectors: UᵀAᵀy and UᵀAᵀAμ.
    """
    count, size, block = len(nodes), len(matrices), nodes.shape[1]
    means, inverses = np.empty((count, size, block)), np.empty((count, size, block))
    ratios, rows = np.empty((count, size + 1, block)), np.empty((count, size, block))
    value = np.empty(block)
    for k in range(count):
        _find_means(means[k], ratios[k], inverses[k], nodes[k], matrices, vectors)
    first[:] = 0
    for which in range(3):
        for i in range(size):
            for k in range(count):
                for s in range(block):
                    first[which, i, s] += weights[which, k, s] * means[k, i, s]
    for i in range(size - 1, -1, -1):
        _step_up(rows, ratios, inverses, i)
        for which in range(len(second)):
            for j in range(i, size):
                if which == 0:
                    for s in range(block):
                        value[s] = -first[0, i, s] * first[0, j, s]
                else:
                    value[:] = 0
                for k in range(count):
                    for s in range(block):
                        value[s] += weights[2 * which, k, s] * (
                            rows[k, j, s] + means[k, i, s] * means[k, j, s]
                        )
                second[which, i, j] = value
                second[which, j, i] = value


@numba.njit(parallel=True, cache=True)
@no_type_check
def infer_blocks(means, covariances, gram, response, block):
    """Fill in the posterior of every image at contrast 1."""
    count, size = means.shape
    for task in numba.prange((count + block - 1) // block):
        matrices, vectors = np.empty((size, size, block)), np.empty((2, size, block))
        ends, least, value = np.empty((2, block)), np.ones(block), np.empty(block)
        _load(matrices, vectors, ends, gram, response, task * block)
        _solve(matrices, vectors, least, value)
        for s in range(min(block, count - task * block)):
            n = task * block + s
            for i in range(size):
                means[n, i] = vectors[0, i, s]
                for j in range(size):
                    covariances[n, i, j] = matrices[i, j, s]


@numba.njit(parallel=True, cache=True)
@no_type_check
def infer_contrast_blocks(contrasts, first, second, gram, response, sd, grid, limits, rule, block):
    """Fill in the posterior of coordinates and contrast of every image.

    Args:
        contrasts: Result: means, variances, 1 where the likeliest is at a limit, and logarithms of
            the likelihood (images, 4).
        first: Result: E(z), E(a z) and E(a² z), (images, 3, size).
        second: Result: covariance of z, and E(a² z zᵀ) if there is room for it
            (images, 1 or 2, size, size).
        gram: ŨᵀAᵀAŨ for Ũ = [μ, U].
        response: ŨᵀAᵀy.
        sd: Prior standard deviation of the contrast about 1.
        grid: Contrasts to scan.
        limits: Least and largest that is sought.
        rule: Nodes, and logarithms of weights, as in `_place_nodes`.
        block: Images that are treated side by side.
    """
    count, kinds, size = len(first), second.shape[1], first.shape[2]
    for task in numba.prange((count + block - 1) // block):
        matrices, vectors = np.empty((size, size, block)), np.empty((2, size, block))
        ends, scales, image = (
            np.empty((2, block)),
            np.zeros((size, block)),
            np.empty((1, size, block)),
        )
        contrast, variance = np.ones(block), np.zeros(block)
        limited, evidence = np.zeros(block), np.empty(block)
        nodes, weights = np.empty((rule.shape[1], block)), np.empty((3, rule.shape[1], block))
        vector_sums, sums = np.empty((3, size, block)), np.empty((kinds, size, size, block))
        _load(matrices, vectors, ends, gram, response, task * block)
        tridiagonalize(matrices, vectors, scales, image)
        _find_contrast(contrast, variance, sd, grid, limits, matrices, vectors, ends)
        for s in range(block):
            limited[s] = contrast[s] <= limits[0] or contrast[s] >= limits[1]
        _place_nodes(
            nodes, weights[0], evidence, contrast, variance, rule, sd, matrices, vectors, ends
        )
        weights[1] = nodes * weights[0]
        weights[2] = nodes * weights[1]
        _integrate(vector_sums, sums, nodes, weights, matrices, vectors)
        turn_vectors_back(vector_sums, matrices, scales)
        for which in range(kinds):
            turn_back(sums[which], matrices, scales, image)
        for s in range(min(block, count - task * block)):
            n = task * block + s
            contrasts[n, 0], contrasts[n, 1] = contrast[s], variance[s]
            contrasts[n, 2], contrasts[n, 3] = limited[s], evidence[s]
            for i in range(size):
                for which in range(3):
                    first[n, which, i] = vector_sums[which, i, s]
                for which in range(kinds):
                    for j in range(size):
                        second[n, which, i, j] = sums[which, i, j, s]
