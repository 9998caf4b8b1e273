"""Small dense problems, solved in float64 on the host."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Complex, Float

_BLOCK = 1 << 15


@dataclass(frozen=True)
class SingularVectors:
    """The left singular vectors and singular values of a tall matrix, largest first."""

    vectors: Complex[np.ndarray, "rows kept"]
    """Orthonormal under the weights that they were computed with."""
    values: Float[np.ndarray, " kept"]
    """Singular values, descending."""


def weighted_gram(
    left: Complex[np.ndarray, "rows a"],
    right: Complex[np.ndarray, "rows b"],
    weights: Float[np.ndarray, " rows"],
) -> Float[np.ndarray, "a b"]:
    """Compute Re Σ w·conj(left)·right in float64, a block of rows at a time.

    With `Ball.weights` these are the inner products of real volumes given by half spectra.
    """
    gram = np.zeros((left.shape[1], right.shape[1]))
    for start in range(0, len(weights), _BLOCK):
        cut = slice(start, start + _BLOCK)
        root = np.sqrt(weights[cut].astype(np.float64))[:, None]
        a = np.ascontiguousarray(left[cut] * root).view(np.float64).reshape(-1)
        b = a if right is left else np.ascontiguousarray(right[cut] * root).view(np.float64)
        a, b = _split(a, left.shape[1]), _split(b.reshape(-1), right.shape[1])
        gram += a.T @ b
    return gram


def _split(flat: Float[np.ndarray, " n"], columns: int) -> Float[np.ndarray, "rows2 columns"]:
    """Stack real and imaginary parts of interleaved complex rows."""
    pairs = flat.reshape(-1, columns, 2)
    return np.concatenate([pairs[..., 0], pairs[..., 1]])


def weighted_svd(
    matrix: Complex[np.ndarray, "rows columns"],
    weights: Float[np.ndarray, " rows"],
    rank: int,
    tolerance: float = 1e-6,
) -> SingularVectors:
    """Compute leading left singular vectors of real volumes given as half spectra.

    Uses the Gram matrix of the columns, so directions below the square root of float32 rounding
    are lost: all with a squared singular value under `tolerance` of the largest are left out.

    Args:
        matrix: One volume per column.
        weights: How often each row stands in the full spectrum.
        rank: Most vectors to keep.
        tolerance: Smallest squared singular value kept, relative to the largest.
    """
    values, rotation = eigh_descending(weighted_gram(matrix, matrix, weights))
    kept = min(rank, int(np.sum(values > tolerance * values[0])))
    roots = np.sqrt(values[:kept])
    vectors = matrix @ (rotation[:, :kept] / roots).astype(np.real(matrix).dtype)
    return SingularVectors(vectors, roots)


def eigh_descending(
    matrix: Float[np.ndarray, "n n"],
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n n"]]:
    """Diagonalize a symmetric matrix, largest eigenvalue first."""
    values, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T))
    return values[::-1], vectors[:, ::-1]


def nearest_psd(matrix: Float[np.ndarray, "n n"], floor: float = 0.0) -> Float[np.ndarray, "n n"]:
    """Replace eigenvalues below `floor` times the largest by that value."""
    values, vectors = eigh_descending(matrix)
    clipped = np.maximum(values, floor * max(values[0], 0.0))
    return (vectors * clipped) @ vectors.T
