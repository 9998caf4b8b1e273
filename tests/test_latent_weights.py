"""How much images count at latent points follows from their posteriors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovar.errors import InputError
from recovar.latent_weights import (
    LatentPosterior,
    choose_bandwidths,
    kernel_weights,
    mahalanobis,
    quantile_of_deviations,
    within_quantile,
)


def random_posterior(seed: int, images: int = 30, zdim: int = 2) -> LatentPosterior:
    rng = np.random.default_rng(seed)
    variances = rng.uniform(1, 4, zdim)
    roots = rng.normal(scale=0.4, size=(images, zdim, zdim))
    covariances = roots @ roots.transpose(0, 2, 1) + 0.05 * np.eye(zdim)
    return LatentPosterior(rng.normal(size=(images, zdim)), covariances, variances)


def normal(x, mean, variance):
    return np.exp(-0.5 * (x - mean) ** 2 / variance) / np.sqrt(2 * np.pi * variance)


@given(seed=st.integers(0, 100), width=st.floats(0.01, 3))
def test_a_weight_is_the_share_of_the_posterior_under_the_kernel(seed, width):
    posterior = random_posterior(seed, zdim=1)
    point, h = np.array([[0.3]]), width * posterior.variances[0]
    found = kernel_weights(posterior, point, np.array([width])).weights[:, 0, 0]
    axis = np.linspace(-15, 15, 6001)
    overlap = [
        np.sum(normal(axis, m, s) * normal(axis, 0.3, h))
        for m, s in zip(posterior.means[:, 0], posterior.covariances[:, 0, 0], strict=True)
    ]
    np.testing.assert_allclose(found, overlap / np.max(overlap), rtol=1e-3, atol=1e-6)


@given(seed=st.integers(0, 100), width=st.floats(0.01, 3))
def test_an_image_lies_where_kernel_and_posterior_both_allow(seed, width):
    posterior = random_posterior(seed)
    point = np.array([[0.5, -0.2]])
    found = kernel_weights(posterior, point, np.array([width]))
    kernel = np.diag(1 / (width * posterior.variances))
    precision = np.linalg.inv(posterior.covariances)
    both = np.linalg.inv(precision + kernel)
    product = np.einsum("nkl,nl->nk", both, np.einsum("nkl,nl->nk", precision, posterior.means))
    # z* + mean − (its part that depends on the point), image by image for a single image
    for n in range(3):
        single = LatentPosterior(
            posterior.means[n : n + 1], posterior.covariances[n : n + 1], posterior.variances
        )
        alone = kernel_weights(single, point, np.array([width]))
        place = point[0] + alone.means[0, 0] - alone.shifts[0, 0]
        expected = product[n] + both[n] @ kernel @ point[0]
        np.testing.assert_allclose(place, expected, rtol=1e-4, atol=1e-5)
    assert found.means.shape == (30, 1, 2)


def test_images_that_say_nothing_count_less_than_those_at_the_point():
    sharp, vague = 0.05 * np.eye(2), 0.99 * np.eye(2)
    posterior = LatentPosterior(np.zeros((2, 2)), np.stack([sharp, vague]), np.ones(2))
    weights = kernel_weights(posterior, np.zeros((1, 2)), np.array([0.1])).weights[:, 0, 0]
    assert weights[0] == 1
    assert weights[1] < 0.2
    distances = mahalanobis(posterior, np.array([[0.5, 0.0]]))[:, 0]
    assert distances[1] < distances[0], "in units of their own precision they are the nearest"


def test_all_images_count_alike_under_a_very_wide_kernel():
    posterior = random_posterior(3)
    found = kernel_weights(posterior, np.zeros((1, 2)), np.array([1e6]))
    assert found.effective_images[0, 0] == pytest.approx(30, rel=1e-4)
    np.testing.assert_allclose(found.means[:, 0], posterior.means, rtol=1e-4, atol=1e-5)


def test_any_number_of_points_and_images_is_weighed_alike():
    posterior = random_posterior(5, images=5000)
    points, widths = np.random.default_rng(0).normal(size=(4, 2)), np.array([0.1, 1.0])
    all_at_once = kernel_weights(posterior, points, widths)
    one = kernel_weights(posterior, points[2:3], widths)
    np.testing.assert_allclose(all_at_once.weights[:, 2], one.weights[:, 0], rtol=1e-5)
    np.testing.assert_allclose(all_at_once.shifts[2], one.shifts[0], rtol=1e-5)


def test_bandwidths_rise_in_equal_ratios_from_what_images_can_tell_apart():
    posterior = random_posterior(1)
    widths = choose_bandwidths(posterior, 5)
    np.testing.assert_allclose(widths[1:] / widths[:-1], widths[1] / widths[0])
    surer = LatentPosterior(posterior.means, 0.01 * posterior.covariances, posterior.variances)
    assert choose_bandwidths(surer, 5)[0] < widths[0]


@pytest.mark.parametrize(("quantile", "zdim"), [(0.95, 1), (0.5, 3)])
def test_the_quantile_holds_that_share_of_the_images_at_a_point(quantile, zdim):
    rng = np.random.default_rng(0)
    roots = rng.normal(size=(20_000, zdim, zdim))
    covariances = roots @ roots.transpose(0, 2, 1) + 0.1 * np.eye(zdim)
    noise = np.linalg.cholesky(covariances) @ rng.normal(size=(20_000, zdim, 1))
    posterior = LatentPosterior(1 + noise[..., 0], covariances, np.ones(zdim))
    share = within_quantile(posterior, np.ones((1, zdim)), quantile).mean()
    assert share == pytest.approx(quantile, abs=0.01)


def test_two_deviations_hold_what_the_first_release_took():
    assert quantile_of_deviations(2.0) == pytest.approx(0.9545, abs=1e-4)


@pytest.mark.parametrize(
    ("points", "message"),
    [(np.zeros((1, 3)), "2 coordinates"), (np.full((1, 2), np.nan), "finite")],
)
def test_points_that_cannot_lie_there_are_refused(points, message):
    with pytest.raises(InputError, match=message):
        kernel_weights(random_posterior(0), points, np.array([1.0]))
