"""Small dense problems against NumPy."""

import numpy as np

from recovar.core.linalg import eigh_descending, nearest_psd, weighted_gram, weighted_svd


def problem(rows=300, columns=12, seed=0):
    generator = np.random.default_rng(seed)
    matrix = generator.normal(size=(rows, columns)) + 1j * generator.normal(size=(rows, columns))
    matrix *= np.linspace(1, 0.1, columns)
    return matrix.astype(np.complex64), generator.choice([1.0, 2.0], rows).astype(np.float32)


def as_real(matrix, weights):
    scaled = matrix.astype(np.complex128) * np.sqrt(weights)[:, None]
    return np.concatenate([scaled.real, scaled.imag])


def test_gram_is_the_real_inner_product():
    left, weights = problem()
    right, _ = problem(columns=5, seed=1)
    expected = as_real(left, weights).T @ as_real(right, weights)
    np.testing.assert_allclose(weighted_gram(left, right, weights), expected, rtol=1e-5, atol=1e-4)


def test_gram_route_gives_the_singular_vectors():
    matrix, weights = problem()
    found = weighted_svd(matrix, weights, 6)
    left, values, _ = np.linalg.svd(as_real(matrix, weights), full_matrices=False)
    np.testing.assert_allclose(found.values, values[:6], rtol=1e-5)
    overlap = as_real(found.vectors, weights).T @ left[:, :6]
    np.testing.assert_allclose(np.abs(np.linalg.svd(overlap)[1]), 1, atol=1e-5)
    gram = weighted_gram(found.vectors, found.vectors, weights)
    np.testing.assert_allclose(gram, np.eye(6), atol=1e-5)


def test_directions_below_rounding_are_left_out():
    matrix, weights = problem(columns=4)
    doubled = np.concatenate([matrix, matrix], axis=1)
    assert weighted_svd(doubled, weights, 8).vectors.shape[1] == 4


def test_eigenvalues_descend():
    values, vectors = eigh_descending(np.diag([1.0, 3.0, 2.0]))
    np.testing.assert_allclose(values, [3, 2, 1])
    np.testing.assert_allclose(np.abs(vectors[:, 0]), [0, 1, 0])


def test_nearest_psd_drops_negative_eigenvalues_only():
    np.testing.assert_allclose(nearest_psd(np.diag([2.0, -1.0])), np.diag([2.0, 0.0]), atol=1e-12)
