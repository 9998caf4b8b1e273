"""The posterior of coordinates and contrast, against dense algebra in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import observe, random_molecule
from scipy import special, stats

from recovar.core.frequencies import Ball
from recovar.core.grid import Grid
from recovar.core.latents_numba import BLOCK
from recovar.core.slicing import REFERENCE
from recovar.core.slicing_numba import NUMBA
from recovar.core.volumes import to_ball
from recovar.posterior import (
    ImageStatistics,
    image_statistics,
    infer,
    least_squares,
    log_likelihood,
)

seeds = st.integers(0, 2**16)
component_counts = st.sampled_from([1, 2, 3, 5, 18])
PIXELS, SPREAD = 60, 0.2


def random_statistics(seed, images, pcs):
    """Draw images y = a·A(μ + U z) + n, and compare them with the columns of A[μ, U]."""
    generator = np.random.default_rng(seed)
    sizes = np.concatenate([[3.0], np.linspace(1.0, 0.1, pcs)])
    columns = generator.normal(size=(images, PIXELS, pcs + 1)) * sizes
    coordinates = generator.normal(size=(images, pcs))
    contrast = 1 + SPREAD * generator.normal(size=images)
    clean = columns[:, :, 0] + np.einsum("npq,nq->np", columns[:, :, 1:], coordinates)
    seen = contrast[:, None] * clean + generator.normal(size=clean.shape)
    gram = np.einsum("npi,npj->nij", columns, columns).astype(np.float32)
    response = np.einsum("npi,np->ni", columns, seen).astype(np.float32)
    return ImageStatistics(gram, response), contrast, coordinates


def dense_posterior(statistics, contrast):
    """Compute means, covariances and the log posterior of one contrast per image."""
    gram = statistics.gram.astype(np.float64)
    response = statistics.response.astype(np.float64)
    a = contrast[:, None]
    precision = np.eye(gram.shape[1] - 1) + a[..., None] ** 2 * gram[:, 1:, 1:]
    pull = a * response[:, 1:] - a**2 * gram[:, 1:, 0]
    covariances = np.linalg.inv(precision)
    means = np.einsum("nij,nj->ni", covariances, pull)
    score = 0.5 * (pull * means).sum(1) - 0.5 * np.linalg.slogdet(precision)[1]
    score += contrast * response[:, 0] - 0.5 * contrast**2 * gram[:, 0, 0]
    return means, covariances, score - 0.5 * ((contrast - 1) / SPREAD) ** 2


@settings(max_examples=10)
@given(seed=seeds, pcs=component_counts)
def test_coordinates_at_fixed_contrast_solve_the_normal_equations(seed, pcs):
    statistics = random_statistics(seed, BLOCK + 3, pcs)[0]
    found = infer(statistics, None)
    means, covariances, _ = dense_posterior(statistics, np.ones(BLOCK + 3))
    np.testing.assert_allclose(found.means, means, atol=1e-9)
    np.testing.assert_allclose(found.covariances, covariances, atol=1e-10)
    assert (found.contrast == 1).all()
    assert not found.contrast_variance.any()


@settings(max_examples=10)
@given(seed=seeds, pcs=component_counts)
def test_coordinates_belong_to_the_contrast_that_was_found(seed, pcs):
    statistics = random_statistics(seed, 20, pcs)[0]
    found = infer(statistics, SPREAD)
    means, covariances, _ = dense_posterior(statistics, found.contrast)
    np.testing.assert_allclose(found.means, means, atol=1e-9)
    np.testing.assert_allclose(found.covariances, covariances, atol=1e-10)


@settings(max_examples=10)
@given(seed=seeds, pcs=component_counts)
def test_no_contrast_is_likelier_than_the_one_found(seed, pcs):
    statistics = random_statistics(seed, 20, pcs)[0]
    found = infer(statistics, SPREAD)
    best = dense_posterior(statistics, found.contrast)[2]
    for contrast in np.linspace(0.1, 2.5, 97):
        # Newton's method by differences stops within 1e-3 standard deviations of the top.
        assert (dense_posterior(statistics, np.full(20, contrast))[2] <= best + 1e-5).all()


def test_the_variance_of_contrast_is_the_inverse_curvature():
    statistics = random_statistics(0, 50, 3)[0]
    found = infer(statistics, SPREAD)
    width = 1e-3
    below, here, above = (
        dense_posterior(statistics, found.contrast + d)[2] for d in (-width, 0, width)
    )
    curvature = (above - 2 * here + below) / width**2
    np.testing.assert_allclose(found.contrast_variance, -1 / curvature, rtol=0.02)


def test_contrast_is_recovered_within_its_posterior_variance():
    statistics, contrast, coordinates = random_statistics(1, 2000, 4)
    found = infer(statistics, SPREAD)
    deviation = (found.contrast - contrast) / np.sqrt(found.contrast_variance)
    assert abs(deviation.std() - 1) < 0.08  # 5 standard errors of 2000 draws
    assert np.corrcoef(found.means[:, 0], coordinates[:, 0])[0, 1] > 0.95


def test_an_image_without_signal_keeps_the_prior():
    empty = ImageStatistics(np.zeros((2, 4, 4), np.float32), np.zeros((2, 4), np.float32))
    found = infer(empty, SPREAD)
    assert not found.means.any()
    np.testing.assert_array_equal(found.covariances, np.broadcast_to(np.eye(3), (2, 3, 3)))
    np.testing.assert_allclose(found.contrast, 1, atol=1e-9)
    np.testing.assert_allclose(found.contrast_variance, SPREAD**2)


def test_coordinates_without_a_prior_are_least_squares():
    statistics, contrast, _ = random_statistics(2, 30, 3)
    found = least_squares(statistics, contrast)
    gram = statistics.gram.astype(np.float64)[:, 1:, 1:] * contrast[:, None, None] ** 2
    pull = statistics.response[:, 1:] - contrast[:, None] * statistics.gram[:, 1:, 0]
    expected = np.linalg.solve(gram, (contrast[:, None] * pull)[..., None])[..., 0]
    np.testing.assert_allclose(found.means, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("operators", [REFERENCE, NUMBA], ids=["jax", "numba"])
def test_an_image_of_the_mean_responds_like_the_mean(operators):
    grid = Grid(size=16, voxel_size=4.0)
    molecule = random_molecule(0)
    images, _ = observe([molecule], grid, 12)
    ball = Ball(16, grid.largest_radius)
    spectra = to_ball(molecule.volume(16), ball)[:, None]
    batch = next(iter(images.blocks()))
    statistics = image_statistics(batch, spectra, ball, operators)
    ratio = statistics.response[:, 0] / statistics.gram[:, 0, 0]
    np.testing.assert_allclose(ratio, 1, atol=0.02)  # interpolation


@settings(max_examples=10)
@given(seed=seeds, pcs=component_counts)
def test_the_likelihood_is_that_of_a_normal_distribution_of_pixels(seed, pcs):
    """y ~ N(Aμ, I + AU(AU)ᵀ), against noise alone."""
    generator = np.random.default_rng(seed)
    columns, seen = generator.normal(size=(3, PIXELS, pcs + 1)), generator.normal(size=(3, PIXELS))
    statistics = ImageStatistics(
        np.einsum("npi,npj->nij", columns, columns), np.einsum("npi,np->ni", columns, seen)
    )
    found = log_likelihood(statistics, infer(statistics, None), None)
    for image, each, value in zip(seen, columns, found, strict=True):
        covariance = np.eye(PIXELS) + each[:, 1:] @ each[:, 1:].T
        expected = stats.multivariate_normal.logpdf(image, each[:, 0], covariance)
        noise = stats.norm.logpdf(image).sum()
        assert value == pytest.approx(expected - noise, abs=1e-6)


def test_the_likelihood_integrates_over_the_contrast():
    statistics = random_statistics(4, 50, 3)[0]
    grid = np.linspace(0.01, 2.5, 500)
    scores = np.array([dense_posterior(statistics, np.full(50, a))[2] for a in grid])
    total = special.logsumexp(scores, axis=0) + np.log(grid[1] - grid[0])
    found = log_likelihood(statistics, infer(statistics, SPREAD), SPREAD)
    np.testing.assert_allclose(found, total - np.log(np.sqrt(2 * np.pi) * SPREAD), atol=0.02)
