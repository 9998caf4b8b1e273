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


def random_statistics(seed, images, pcs, signal=1.0):
    """Draw images y = a·A(μ + U z) + n, and compare them with the columns of A[μ, U]."""
    generator = np.random.default_rng(seed)
    sizes = signal * np.concatenate([[3.0], np.linspace(1.0, 0.1, pcs)])
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


def moments_on_a_grid(statistics):
    """Average over 601 contrasts: E(a), E(a²), E(z), E(z zᵀ), E(a z) and E(a² z zᵀ)."""
    grid = np.linspace(-0.5, 2.5, 601)
    images = len(statistics.gram)
    means, covariances, scores = map(
        np.stack, zip(*(dense_posterior(statistics, np.full(images, a)) for a in grid), strict=True)
    )
    shares = np.exp(scores - scores.max(0))
    shares /= shares.sum(0)
    squares = covariances + means[..., None] * means[..., None, :]
    weights = [shares * grid[:, None] ** power for power in range(3)]
    return (
        weights[1].sum(0),
        weights[2].sum(0),
        np.einsum("kn,kni->ni", weights[0], means),
        np.einsum("kn,knij->nij", weights[0], squares),
        np.einsum("kn,kni->ni", weights[1], means),
        np.einsum("kn,knij->nij", weights[2], squares),
    )


@settings(max_examples=5)
@given(
    seed=seeds,
    pcs=component_counts,
    signal=st.sampled_from([1.0, 0.3, 0.1]),
)
def test_moments_are_averages_over_all_contrasts(seed, pcs, signal):
    statistics = random_statistics(seed, BLOCK + 3, pcs, signal)[0]
    found = infer(statistics, SPREAD, weighted=True)
    contrast, contrast_square, mean, square, product, weighted = moments_on_a_grid(statistics)
    # Gauss-Hermite quadrature with five nodes is off by at most 1e-3 standard deviations here.
    off = 2e-3
    np.testing.assert_allclose(found.contrast, contrast, atol=off * SPREAD)
    variance = contrast_square - contrast**2
    np.testing.assert_allclose(found.contrast_variance, variance, rtol=2 * off)
    np.testing.assert_allclose(found.means, mean, atol=off)
    covariance = square - mean[:, :, None] * mean[:, None]
    np.testing.assert_allclose(found.covariances, covariance, atol=off)
    np.testing.assert_allclose(found.weighted.first[:, 0], found.contrast)
    np.testing.assert_allclose(found.weighted.first[:, 1:], product, atol=off)
    np.testing.assert_allclose(found.weighted.second[:, 0, 0], contrast_square, rtol=off)
    scale = np.sqrt(np.einsum("nkk->nk", weighted))
    apart = found.weighted.second[:, 1:, 1:] - weighted
    assert np.abs(apart / scale[:, :, None] / scale[:, None]).max() < 2 * off


def test_moments_without_weights_do_not_depend_on_asking_for_more():
    statistics = random_statistics(3, 40, 6)[0]
    few, all_of_them = infer(statistics, SPREAD), infer(statistics, SPREAD, weighted=True)
    assert few.weighted is None
    np.testing.assert_allclose(few.means, all_of_them.means, rtol=1e-12)
    np.testing.assert_allclose(few.covariances, all_of_them.covariances, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("mean", "motion"), [(30.0, 10.0), (10.0, 5.0), (3.0, 1.5)])
def test_errors_of_coordinates_and_contrast_are_as_large_as_claimed(mean, motion):
    """Images drawn from the model, whose first component resembles the mean."""
    generator = np.random.default_rng(5)
    count, pcs = 4000, 3
    sizes = np.array([mean, motion, motion / 2, motion / 4]) / PIXELS**0.5
    columns = generator.normal(size=(count, PIXELS, pcs + 1)) * sizes
    columns[:, :, 1] += 0.5 * motion / mean * columns[:, :, 0]
    z = generator.normal(size=(count, pcs))
    a = 1 + SPREAD * generator.normal(size=count)
    clean = columns[:, :, 0] + np.einsum("npq,nq->np", columns[:, :, 1:], z)
    seen = a[:, None] * clean + generator.normal(size=clean.shape)
    statistics = ImageStatistics(
        np.einsum("npi,npj->nij", columns, columns), np.einsum("npi,np->ni", columns, seen)
    )
    found = infer(statistics, SPREAD)
    # Squares of normal variables over 4000 images: a standard error of 0.022.
    scores = (found.means - z) ** 2 / np.einsum("nkk->nk", found.covariances)
    np.testing.assert_allclose(scores.mean(0), 1, atol=0.07)
    squares = (found.contrast - a) ** 2 / found.contrast_variance
    assert squares.mean() == pytest.approx(1, abs=0.07)


def test_contrasts_beyond_the_limits_are_told_of():
    columns = np.random.default_rng(6).normal(size=(3, PIXELS, 3)) * [30.0, 1.0, 1.0]
    seen = np.array([-0.5, 1.0, 7.0])[:, None] * columns[:, :, 0]
    statistics = ImageStatistics(
        np.einsum("npi,npj->nij", columns, columns), np.einsum("npi,np->ni", columns, seen)
    )
    assert infer(statistics, 0.5).limited.tolist() == [True, False, True]
    assert infer(statistics, None).limited is None


def test_an_image_without_signal_keeps_the_prior():
    empty = ImageStatistics(np.zeros((2, 4, 4), np.float32), np.zeros((2, 4), np.float32))
    found = infer(empty, SPREAD)
    assert not found.means.any()
    np.testing.assert_allclose(found.covariances, np.broadcast_to(np.eye(3), (2, 3, 3)), atol=1e-9)
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
    found = log_likelihood(statistics, infer(statistics, None))
    for image, each, value in zip(seen, columns, found, strict=True):
        covariance = np.eye(PIXELS) + each[:, 1:] @ each[:, 1:].T
        expected = stats.multivariate_normal.logpdf(image, each[:, 0], covariance)
        noise = stats.norm.logpdf(image).sum()
        assert value == pytest.approx(expected - noise, abs=1e-6)


def test_the_likelihood_integrates_over_the_contrast():
    statistics = random_statistics(4, 50, 3)[0]
    grid = np.linspace(-0.5, 2.5, 600)
    scores = np.array([dense_posterior(statistics, np.full(50, a))[2] for a in grid])
    total = special.logsumexp(scores, axis=0) + np.log(grid[1] - grid[0])
    found = log_likelihood(statistics, infer(statistics, SPREAD))
    np.testing.assert_allclose(found, total - np.log(np.sqrt(2 * np.pi) * SPREAD), atol=1e-3)
