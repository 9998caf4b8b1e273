"""From columns to principal components."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recovar.core import fourier
from recovar.core.frequencies import Ball
from recovar.core.linalg import weighted_gram
from recovar.covariance import Columns
from recovar.pca import (
    basis_from_columns,
    principal_components,
    project_covariance_least_squares,
    project_covariance_likelihood,
    remove_direction,
)

SIZE, RADIUS = 16, 5


def random_volumes(count, seed=0):
    """Spectra of band-limited real volumes."""
    ball = Ball(SIZE, RADIUS, 1)
    cubes = np.random.default_rng(seed).normal(size=(count, SIZE, SIZE, SIZE)).astype(np.float32)
    spectra = ball.from_cube(np.moveaxis(fourier.to_spectrum(cubes), 0, -1))
    return ball, spectra * (ball.radii <= RADIUS)[:, None]


def random_basis(pcs=4, seed=0):
    ball, spectra = random_volumes(pcs, seed)
    empty = np.zeros((pcs // 2, RADIUS + 1))
    columns = Columns(np.zeros((pcs // 2, 3), np.int32), spectra, ball, empty, empty)
    return basis_from_columns(columns, pcs), spectra


def random_covariance(generator, pcs):
    root = generator.normal(size=(pcs, pcs)) * np.linspace(1.5, 0.3, pcs)
    return root @ root.T


def random_grams(generator, images, pcs):
    operators = generator.normal(size=(images, 2 * pcs, pcs))
    return operators.transpose(0, 2, 1) @ operators


def statistics(generator, covariance, images):
    """Draw z, then b = G z + Aᵀn."""
    pcs = len(covariance)
    grams = random_grams(generator, images, pcs)
    latents = generator.multivariate_normal(np.zeros(pcs), covariance, images)
    noise = np.linalg.cholesky(grams) @ generator.normal(size=(images, pcs, 1))
    projections = (grams @ latents[..., None] + noise)[..., 0]
    return projections.astype(np.float32), grams.astype(np.float32)


def likelihood(covariance, projections, grams):
    """Log density of b, up to terms without the covariance."""
    inverse = np.linalg.inv(np.linalg.inv(covariance) + grams)
    quadratic = np.einsum("ia,iab,ib->i", projections, inverse, projections)
    _, volume = np.linalg.slogdet(np.eye(len(covariance)) + covariance @ grams)
    return 0.5 * (quadratic - volume).sum()


def test_the_basis_is_orthonormal_and_spans_the_columns():
    basis, spectra = random_basis()
    weights = basis.ball.weights
    np.testing.assert_allclose(
        weighted_gram(basis.values, basis.values, weights), np.eye(4), atol=1e-5
    )
    inside = weighted_gram(basis.values, spectra, weights)
    np.testing.assert_allclose(
        (inside**2).sum(0), np.diag(weighted_gram(spectra, spectra, weights)), rtol=1e-4
    )


def test_the_basis_in_a_small_box_has_the_same_slices():
    basis, _ = random_basis()
    small, large = basis.volumes(), basis.volumes(SIZE)
    spectra = fourier.to_spectrum(large.astype(np.float32))
    cropped = fourier.crop_spectrum(spectra, small.shape[-1])
    np.testing.assert_allclose(cropped, fourier.to_spectrum(small), atol=1e-4)


@given(seed=st.integers(0, 2**16), pcs=st.integers(1, 5))
def test_least_squares_recovers_a_covariance_from_exact_moments(seed, pcs):
    generator = np.random.default_rng(seed)
    covariance = random_covariance(generator, pcs)
    grams = random_grams(generator, 6, pcs)
    roots = np.linalg.cholesky(grams @ covariance @ grams + grams) * pcs**0.5
    projections = roots.transpose(0, 2, 1).reshape(-1, pcs)
    found = project_covariance_least_squares(projections, np.repeat(grams, pcs, axis=0))
    np.testing.assert_allclose(found, covariance, atol=1e-4 * np.abs(covariance).max())


def test_likelihood_is_consistent_and_beats_least_squares():
    generator = np.random.default_rng(0)
    covariance = random_covariance(generator, 4)
    projections, grams = statistics(generator, covariance, 4000)
    squares = project_covariance_least_squares(projections, grams)
    likely = project_covariance_likelihood(projections, grams)
    # The scatter of a variance estimated from 4,000 draws is √(2/4000) = 2 %.
    assert np.linalg.norm(likely - covariance) < 0.1 * np.linalg.norm(covariance)
    assert np.linalg.eigvalsh(likely).min() > 0
    assert likelihood(likely, projections, grams) >= likelihood(
        squares + 1e-6 * np.eye(4), projections, grams
    )


def test_likelihood_lets_absent_directions_vanish():
    generator = np.random.default_rng(1)
    projections, grams = statistics(generator, np.diag([2.0, 0.0, 0.0]), 3000)
    found = np.linalg.eigvalsh(project_covariance_likelihood(projections, grams, iterations=80))
    assert 1.8 < found[-1] < 2.2
    assert found[:2].max() < 0.05


def test_contrast_enters_as_a_scale_of_the_statistics():
    generator = np.random.default_rng(2)
    covariance = random_covariance(generator, 3)
    contrast = generator.uniform(0.5, 1.5, 3000).astype(np.float32)
    grams = random_grams(generator, 3000, 3).astype(np.float32)
    latents = generator.multivariate_normal(np.zeros(3), covariance, 3000)
    noise = np.linalg.cholesky(grams) @ generator.normal(size=(3000, 3, 1))
    seen = ((contrast[:, None, None] * grams) @ latents[..., None] + noise)[..., 0]
    found = project_covariance_likelihood(
        (contrast[:, None] * seen).astype(np.float32), contrast[:, None, None] ** 2 * grams
    )
    assert np.linalg.norm(found - covariance) < 0.12 * np.linalg.norm(covariance)


def test_principal_components_reproduce_the_covariance_of_volumes():
    basis, _ = random_basis()
    covariance = random_covariance(np.random.default_rng(5), 4)
    found = principal_components(basis, covariance, SIZE, 4)
    assert (np.diff(found.eigenvalues) <= 0).all()
    np.testing.assert_allclose((found.volumes**2).sum((1, 2, 3)), SIZE**-3.0, rtol=1e-4)
    assert (found.volumes.sum((1, 2, 3)) >= 0).all()
    maps = basis.volumes(SIZE).reshape(4, -1)
    expected = np.einsum("av,ab,bv->v", maps, covariance, maps)
    variance = (found.eigenvalues[:, None] * found.volumes.reshape(4, -1) ** 2).sum(0)
    np.testing.assert_allclose(variance, expected, atol=1e-4 * expected.max())


def test_a_removed_direction_carries_no_variance():
    basis, _ = random_basis()
    covariance = random_covariance(np.random.default_rng(6), 4)
    _, mean = random_volumes(1, seed=7)
    direction = mean[:, 0] + 300 * basis.values[:, 1]
    cleaned, variances = remove_direction(basis, covariance, direction)
    weights = basis.ball.weights
    unit = direction / np.sqrt(weighted_gram(direction[:, None], direction[:, None], weights)[0, 0])
    assert np.abs(weighted_gram(cleaned.values, unit[:, None], weights)).max() < 1e-4
    # Against an SVD of maps: project them, weighted by the covariance, off the direction.
    cube = np.moveaxis(basis.ball.to_cube(unit[:, None]), -1, 0)
    line = fourier.to_volume(np.ascontiguousarray(cube)).ravel() * SIZE**1.5
    maps = basis.volumes(SIZE).reshape(4, -1).T * SIZE**1.5 @ np.linalg.cholesky(covariance)
    left = np.linalg.svd(maps - np.outer(line, line @ maps), compute_uv=False)
    np.testing.assert_allclose(np.diag(variances)[:3], left[:3] ** 2, rtol=1e-3)


def test_a_basis_weighted_by_one_spans_the_same_space():
    basis, _ = random_basis()
    weighted = basis.weighted(np.ones((SIZE,) * 3, np.float32))
    weights = basis.ball.weights * (basis.ball.radii <= RADIUS)
    overlap = weighted_gram(basis.values, weighted.values, weights)
    np.testing.assert_allclose(overlap.T @ overlap, np.eye(overlap.shape[1]), atol=1e-4)
    np.testing.assert_allclose(weighted.singular_values, basis.singular_values, rtol=1e-4)


def test_a_weighted_basis_lies_where_the_weight_does():
    basis, _ = random_basis()
    weight = np.zeros((SIZE,) * 3, np.float32)
    weight[: SIZE // 2] = 1
    power = (basis.weighted(weight).volumes(SIZE) ** 2).sum(0)
    assert power[1 : SIZE // 2 - 1].sum() > 5 * power[SIZE // 2 + 1 : -1].sum()
